"""`topo shrink`: a mask and weights into a smaller model, with the proof that nothing changed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from topo.cli import inputs
from topo.cli.options import UsageError, at_least, check_outputs, command, network_options, rule_options
from topo.cli.output import deliver, printable, quiet, say, speak, wrote
from topo.errors import TopoError
from topo.files import write_masks

_ENDINGS = (".safetensors", ".pt", ".pth")


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "shrink",
        "make a smaller model: what a mask leaves dead goes, the outputs stay",
        "topo shrink mask.pt --model resnet20 --weights final.safetensors -o small.safetensors",
    )  # fmt: skip
    made.add_argument("mask", metavar="MASK", help="a mask file or folder, written by any pruner")
    made.add_argument("--weights", metavar="W", help="a checkpoint of the model (default: MASK, if it holds them)")
    made.add_argument(
        "--check",
        type=at_least(1, 10_000),
        metavar="N",
        default=2,
        help="random inputs to run both models on (default 2)",
    )
    made.add_argument("--time", action="store_true", help="measure a forward pass of both on this machine, as ratios")
    made.add_argument(
        "--conservative",
        action="store_true",
        help="go on where an operation cannot be followed; what it reads stays",
    )
    made.add_argument("--json", metavar="OUT", help="the report as JSON; - is standard output")
    made.add_argument(
        "-o", dest="out", metavar="OUT", required=True,
        help="the smaller model: .safetensors or .pt; beside it .map.json (old to new) and .masks.safetensors",
    )  # fmt: skip
    network_options(made)
    rule_options(made)


def run(args: argparse.Namespace) -> int:
    if args.model is None:
        raise UsageError("--model says which network the mask belongs to; it is needed")
    if str(args.model).endswith(".json"):
        raise UsageError("--model is a wiring, which has no weights; name the network itself")
    out = Path(args.out)
    if out.suffix not in _ENDINGS:
        raise UsageError(f"-o '{out}' should end in {', '.join(_ENDINGS)}")
    beside = {"map": out.with_suffix(".map.json"), "masks": out.with_suffix(".masks.safetensors")}
    read = [args.mask, *([args.weights] if args.weights else [])]
    check_outputs(read, {"-o": out, "the map": beside["map"], "the masks": beside["masks"], "--json": args.json})
    from topo.models import names
    from topo.networks import build
    from topo.shrink import shrink
    from topo.shrinking import stored
    from topo.shrinking.timing import timed

    wiring = inputs.wiring_of(args)
    masks = inputs.read(args.mask, args, wiring)
    model = build(args.model)
    model = model.to_empty(device="cpu") if any(p.is_meta for p in model.parameters()) else model
    try:
        notes = stored.load_weights(model, args.weights or args.mask)
    except TopoError as error:
        if args.weights is None:
            raise TopoError(f"{error}; --weights names the checkpoint") from None
        raise
    given: dict[str, Any] = {"input_shape": args.input}
    if args.inputs:
        from topo.trace.inputs import inputs_in

        given = dict(zip(("args", "kwargs"), inputs_in(args.inputs)))
    small = shrink(
        model, masks, wiring, check=args.check, conservative=args.conservative, rng=getattr(args, "seed", 0), **given
    )
    report = {**small.report, "notes": [*notes, *small.report["notes"]]}
    report.pop("shapes")
    if args.time:
        from topo.trace import captured_as_called

        example, _, _ = captured_as_called(model, given.get("input_shape"), given.get("args"), given.get("kwargs"))
        report["time"] = timed(model.eval(), small.model, example)
    stored.write(out, small.model.state_dict(), str(args.model), small.to_json())
    write_masks(small.masks, beside["masks"])
    deliver(small.to_json() + "\n", beside["map"], args)
    if args.json:
        deliver(json.dumps(report, indent=1) + "\n", args.json, args)
    if args.json != "-":
        say("\n".join(printable(line) for line in lines(report)) + "\n")
    for path in (beside["masks"], out):
        wrote(path, args)
    if not quiet(args):
        own = "" if str(args.model).partition(":")[0] in names() else f",model={args.model}"
        speak(printable(f"topo: --model shrunk:{out}{own} names the smaller model"))
    return 0


def lines(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    before, after, proof = report["before"], report["after"], report["proof"]

    def row(title: str, key: str) -> str:
        old, new = before[key], after[key]
        share = f"{new / old:8.1%}" if old and new is not None else "       -"
        return f"{title:<14}{_count(old):>16}{_count(new):>16}{share}"

    made = [
        f"{'':<14}{'before':>16}{'after':>16}",
        row("parameters", "parameters"),
        row("bytes", "bytes"),
        row("kept weights", "kept"),
        row("macs", "macs"),
        f"largest difference of the outputs on {proof['inputs']} random inputs, {proof['dtype']}: "
        f"{proof['largest_difference']:.2g} ({proof['relative_difference']:.2g} of the largest output)",
    ]
    same = report["effective"]["part"] == report["effective"]["after"]
    made.append(f"effective weights, nodes and paths: {'the same' if same else 'not the same, see the notes'}")
    for why, count in report["stays"].items():
        made.append(f"stays though dead: {count:,} unit{'s' * (count != 1)}, because {why}")
    if "time" in report:
        made += _times(report["time"])
    return [*made, *(f"note: {note}" for note in report["notes"])]


def _times(found: dict[str, Any]) -> list[str]:
    ratios = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in found["times_faster"].items() if ratio is not None)
    return [
        f"forward pass of {found['batch']} examples, {found['threads']} threads: dense "
        f"{found['seconds']['dense'] * 1000:.1f} ms; speed against it: {ratios}",
        *(f"note: {note}" for note in found["notes"]),
    ]


def _count(value: Any) -> str:
    return "unknown" if value is None else f"{value:,}"
