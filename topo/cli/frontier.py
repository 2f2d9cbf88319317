"""`topo generate balance --frontier N`: the trade between nodes and paths at one budget."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topo.cli import inputs
from topo.cli.options import PLOT_ENDINGS, UsageError, check_outputs
from topo.cli.output import Progress, deliver, quiet, say, wrote

_DATA = (".json", ".csv")


def run(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Write the front as .json or .csv (JSON to standard output by default); of a figure, also the data beside it."""
    from topo.networks import maskable
    from topo.optimize import Frontier, front, methods
    from topo.quotas import budgets

    others = (args.source, args.quota, args.data, args.layers)
    if args.method != "balance" or any(other is not None for other in others):
        raise UsageError("--frontier goes with the method balance, and with no --from, --quota, --data or --layers")
    ending = Path(args.out).suffix.lower() if args.out else ".json"
    if ending not in (*_DATA, *PLOT_ENDINGS):
        raise UsageError(f"a frontier is written as {', '.join((*_DATA, *PLOT_ENDINGS))}, not as '{args.out}'")
    if args.out and ending in PLOT_ENDINGS:
        check_outputs(
            [], {"-o": args.out, **{f"the {data} beside it": Path(args.out).with_suffix(data) for data in _DATA}}
        )
    wiring = inputs.wiring_of(args)
    assert wiring is not None
    total = sum(budgets("uniform", maskable(wiring), density=args.density, sparsity=args.sparsity).values())
    over = options.pop("over", "nodes")
    chosen = methods["balance"].read(options)
    with Progress(not quiet(args), "frontier, point ") as progress:
        found: Frontier = front(
            wiring,
            total=total,
            over=over,
            points=args.frontier,
            rng=getattr(args, "seed", 0),
            progress=progress,
            **chosen,
        )
    if not args.out:
        say(found.to_json())
        return 0
    out = Path(args.out)
    if ending in PLOT_ENDINGS:
        _draw(found, out)
        wrote(out, args)
        for data in _DATA:
            deliver(found.to_json() if data == ".json" else found.to_csv(), out.with_suffix(data), args)
    else:
        deliver(found.to_json() if ending == ".json" else found.to_csv(), out, args)
    best = f"hypervolume {found.hypervolume:.4f} of {'FLOPs' if over == 'flops' else 'nodes'} x log paths"
    say(f"{len(found.pareto)} of {len(found.points)} points are efficient; {best}, {found.total:,} parameters\n")
    return 0


def _draw(found: Any, out: Path) -> None:
    from topo.plots import plots
    from topo.plots.style import figure, paper, save

    with paper():
        drawn = figure()
        plots["frontier"](found, drawn.add_subplot())
        save(drawn, out)
