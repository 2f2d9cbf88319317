"""`topo generate wanda` and its like: a model and calibration data in, masks and pruned weights out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topo.cli.options import UsageError
from topo.cli.output import Progress, printable, quiet, speak
from topo.masks import MaskSet


def run(
    args: argparse.Namespace, options: dict[str, Any], images: Callable[[argparse.Namespace], dict[str, Any]]
) -> MaskSet:
    """The masks; pruned weights are written here. images: reads `--data` for models that take no tokens."""
    from topo.calibrated.calibration import speaks
    from topo.calibrated.pruning import prune
    from topo.calibrated.written import write_weights
    from topo.networks import with_weights
    from topo.shrinking.stored import load_weights
    from topo.train.run import built

    model, seed = args.model, getattr(args, "seed", 0)
    own = model.startswith("hf:")
    if model.endswith(".json"):
        raise UsageError("--model is a wiring, which has no weights; name the network itself")
    if own and args.weights:
        raise UsageError(f"--weights is for other models; '{model}' has the folder's own")
    _check_out(args.out_weights, own)
    module = with_weights(model) if own else built(model, seed)[0]
    notes = load_weights(module, args.weights) if args.weights else []
    if not own and not args.weights:
        notes = ["the weights are drawn from the seed: --weights gives those of a checkpoint"]
    given = _tokens(args, module, model) if speaks(module) else images(args)["batches"]
    with Progress(not quiet(args), f"{args.method}, block ") as progress:
        pruned = prune(
            args.method, module, given, density=args.density, sparsity=args.sparsity, quota=args.quota or "uniform",
            layers=args.layers, rng=seed, progress=progress, in_place=True, **options,
        )  # fmt: skip
    if args.out_weights:
        write_weights(pruned.model, Path(args.out_weights), own)
    from topo._version import __version__

    for note in notes:
        if not quiet(args):
            speak(f"topo: {printable(note)}")
    return pruned.masks.with_provenance(model=model, created_by=f"topo {__version__}", density=pruned.masks.density)


def _tokens(args: argparse.Namespace, module: Any, model: str) -> list[Any]:
    from topo.calibrated.calibration import LENGTH, read_tokens

    config = getattr(module, "config", None)
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or LENGTH
    embedding = module.get_input_embeddings() if hasattr(module, "get_input_embeddings") else None
    if args.length and args.length > most:
        raise UsageError(f"--length {args.length} is more than the {most} positions of '{model}'")
    return read_tokens(
        args.data, tokenizer=model.partition(":")[2] if model.startswith("hf:") else None,
        vocabulary=getattr(embedding, "num_embeddings", None), length=args.length or min(most, LENGTH),
        sequences=args.examples, rng=getattr(args, "seed", 0),
    )  # fmt: skip


def _check_out(out: str | None, folder: bool) -> None:
    """Before any work: UsageError for a place that weights cannot be written to."""
    if out is None:
        return
    path = Path(out)
    if folder and path.exists():
        raise UsageError(f"--out-weights '{out}' is there already; it names a new folder for the pruned model")
    if not folder and path.suffix not in (".safetensors", ".pt"):
        raise UsageError(f"--out-weights '{out}' should end in .safetensors or .pt")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out-weights: there is no folder '{path.parent}'")
