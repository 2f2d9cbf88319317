"""`topo generate`: masks for a network, made by a method and a budget."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

from topo.cli import calibrated, frontier, inputs
from topo.cli.options import (
    UsageError,
    at_least,
    check_outputs,
    command,
    fraction,
    layers_option,
    network_options,
)
from topo.cli.output import Progress, printable, quiet, say, speak, wrote
from topo.errors import TopoError
from topo.files import write_masks
from topo.formats import writer
from topo.masks import MaskSet


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    made = command(
        commands, parents, run, "generate",
        "make masks for a network: random, regular, optimized; every method is in `topo list methods`",
        "topo generate biregular --model resnet20 --density 0.05 --quota erk -o masks.safetensors",
    )  # fmt: skip
    made.add_argument("method", metavar="METHOD", help="how the masks are made (topo list methods)")
    budget = made.add_mutually_exclusive_group()
    budget.add_argument("--density", type=fraction, metavar="D", help="fraction of the parameters to keep, 0 to 1")
    budget.add_argument("--sparsity", type=fraction, metavar="S", help="fraction to prune, 1 - density")
    made.add_argument("--quota", metavar="Q", help="how the budget is shared among layers (topo list quotas)")
    made.add_argument(
        "-O", dest="options", action="append", default=[], type=_option, metavar="KEY=VALUE",
        help="an option of the method, again for another",
    )  # fmt: skip
    made.add_argument(
        "--frontier", type=at_least(2, 1000), metavar="N",
        help="with balance: N points from most nodes to most paths instead of masks; -o .json, .csv or a figure",
    )  # fmt: skip
    layers_option(made)
    made.add_argument(
        "--data", metavar="D",
        help="what pruners look at: digits, a folder or .npz file of images; for wanda and sparsegpt on language "
        "models a text, or a .npy, .npz, .pt or .safetensors file of token numbers",
    )  # fmt: skip
    made.add_argument(
        "--examples", type=at_least(1), metavar="N",
        help="images of each class for a pruner (default 10), or sequences of tokens (default up to 128)",
    )  # fmt: skip
    made.add_argument(
        "--length", type=at_least(1), metavar="N", help="tokens in a sequence (default 2048, or what the model takes)"
    )
    made.add_argument(
        "--weights",
        metavar="W",
        help="a checkpoint of what wanda and sparsegpt prune (hf:FOLDER has its own)",
    )
    made.add_argument(
        "--out-weights", dest="out_weights", metavar="OUT",
        help="with wanda and sparsegpt: write the pruned weights too: a folder for hf:, else .safetensors or .pt",
    )  # fmt: skip
    made.add_argument(
        "--from", dest="source", metavar="FILE", help="masks to start from (repair, configuration, invert, shuffle)"
    )
    network_options(made)
    made.add_argument(
        "-o", dest="out", metavar="OUT",
        help="the file to write, .safetensors or .npz (default METHOD_MODEL_dDENSITY.safetensors, unless it exists)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from topo.generate import calibrates, find_method, generate, is_pruner

    entry = find_method(args.method)
    starts = getattr(entry, "starts", False)
    rewires = getattr(entry, "rewires", False) or starts
    if args.model is None and not (rewires and args.source):
        raise UsageError("--model says for which network the masks are made; it is needed")
    if args.source and not rewires:
        raise UsageError(
            f"method '{args.method}' starts from no masks; --from is for repair, configuration, invert and shuffle"
        )
    if rewires and args.source is None:
        raise UsageError(f"method '{args.method}' starts from masks: give --from FILE")
    patterned = calibrates(entry) and any(key == "nm" for key, _ in args.options)
    if not rewires and args.density is None and args.sparsity is None and not patterned:
        raise UsageError("how much to keep? give --density or --sparsity")
    options = _once(args.options, set(inspect.signature(generate).parameters) - {"budgets", "options"})
    check_outputs([args.source] if args.source else [], {"-o": args.out})
    if args.frontier is not None:
        return frontier.run(args, options)
    if args.out:
        writer(args.out)  # an ending that is none is said before the work
    needs = getattr(entry, "needs", "nothing") == "data"
    if needs != (args.data is not None):
        raise UsageError(f"method '{args.method}' " + ("needs --data" if needs else "looks at no data"))
    if calibrates(entry):
        _written(calibrated.run(args, options, _seen), args)
        return 0
    for name, value in (("--weights", args.weights), ("--out-weights", args.out_weights), ("--length", args.length)):
        if value is not None:
            raise UsageError(f"{name} is for methods that calibrate (wanda, sparsegpt), not for '{args.method}'")
    given = _seen(args) if needs else {"input_shape": args.input}
    source: MaskSet | None = None
    wiring = args.model if is_pruner(entry) else inputs.wiring_of(args)
    if rewires:
        source, wiring = _source(args, wiring)
    if scores := is_pruner(entry):
        if args.inputs:
            raise UsageError("pruners send one input through the network; give its shape by --input, not --inputs")
        given["threads"] = getattr(args, "threads", None)
    with Progress(not quiet(args), f"{args.method}, {'round' if scores else 'layer'} ") as progress:
        masks = generate(
            args.method, wiring, density=args.density, sparsity=args.sparsity, quota=args.quota, source=source,
            layers=args.layers, rng=getattr(args, "seed", 0), progress=progress, **given, **options,
        )  # fmt: skip
    _written(masks, args)
    return 0


def _written(masks: MaskSet, args: argparse.Namespace) -> None:
    """Write the masks where the command says, and tell what they are."""
    out = Path(args.out) if args.out else _free(_file_name(args.method, args.model, masks))
    write_masks(masks, out)
    say(_summary(masks) + "\n")
    if not quiet(args):
        for note in masks.provenance.get("notes", ()):
            speak(f"topo: {printable(note)}")
    wrote(out, args)


def _source(args: argparse.Namespace, wiring: Any) -> tuple[MaskSet, Any]:
    """The masks of --from, and the wiring: of --model, else of the model that the file names, if it names one."""
    masks = inputs.read(args.source, args, wiring)
    found, _ = inputs.network(masks, wiring, args)
    args.model = args.model or (found.model if found else Path(args.source).stem)
    return masks, found


def _seen(args: argparse.Namespace) -> dict[str, Any]:
    """The examples that a pruner sees: as many of every class, in batches of about 256."""
    from topo.data import batches, load

    found, each = load(args.data), args.examples or 10
    classes = len(found.classes)
    share = max(n for n in range(1, min(each, 256 // classes) + 1) if each % n == 0) if classes <= 256 else 1
    seen = batches(found, share * classes, getattr(args, "seed", 0), per_class=each, count=each // share)
    return {"batches": list(seen), "input_shape": args.input}


def _option(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not an option; write KEY=VALUE, as in nm=2:4")
    return key.strip(), value.strip()


def _once(options: list[tuple[str, str]], taken: set[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in options:
        if key in taken:
            raise UsageError(f"-O {key} is not an option of a method; the command has options of its own for that")
        if key in given:
            raise UsageError(f"-O {key} is given twice")
        given[key] = value
    return given


def _file_name(method: str, model: str, masks: MaskSet) -> str:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")
    return f"{method}_{name}_d{masks.density:.4g}.safetensors"


def _free(name: str) -> Path:
    if Path(name).exists():
        raise TopoError(f"'{name}' is there already; -o names the file to write")
    return Path(name)


def _summary(masks: MaskSet) -> str:
    line = f"{masks.kept:,} of {masks.size:,} parameters kept, density {masks.density:.4g}, "
    line += f"{len(masks)} layer{'s' * (len(masks) != 1)}"
    requested = masks.provenance.get("asked")
    line = line if requested is None else f"{line}; asked were {requested:,}"
    return "\n".join(map(printable, [line, *_certified(masks.provenance.get("certificate"))]))


def _certified(found: dict[str, Any] | None) -> list[str]:
    """What an optimizer found against its bounds, and what it gave up."""
    if found is None:
        return []
    paths, bound, ratio = (found[name] for name in ("log10_paths", "log10_paths_bound", "ratio"))
    counts = f"{found['nodes']:,} of {found['all_nodes']:,} nodes, "
    counts += "no path" if paths is None else f"10^{paths:.2f} paths"
    if paths is not None and bound is not None:
        counts += f" (bound 10^{bound:.2f}{'' if found['bound_certified'] else ', not certified'})"
    even = [] if ratio is None else [f"path entropy at {ratio:.4f} of its bound, the log of the budgets"]
    spent = []
    if found.get("flops") and found.get("flops_dense"):
        spent = [f"{found['flops'] / found['flops_dense']:.4g} of the dense FLOPs"]
        if found.get("flops_npb"):
            spent[0] += f", {found['flops'] / found['flops_npb']:.3g} times those of ERK's budgets (npb)"
    return ["; ".join([counts, *even, *spent]), *(f"note: {note}" for note in found.get("notes", ()))]
