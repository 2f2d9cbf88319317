"""Processor seconds of whole calls, ours and a rival's in turn, and the table of them in benchmarks/README.md.

    python benchmarks/processor_seconds.py [--write]

The least of several; on a machine with other work they say more than the clock does.
"""

from __future__ import annotations

import os

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

import argparse
import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
from run import HERE, machine, rewrite

MARKS = ("<!-- seconds: written by benchmarks/processor_seconds.py -->", "<!-- end of seconds -->")
NUMBERS = ("effective_paths", "log10_effective_paths", "effective_nodes", "effective_params", "sigma1", "sigma2")


def least(*calls: Callable[[], object], repeats: int = 3) -> list[float]:
    """Processor seconds of each call, the least of `repeats` after the first; the calls take turns."""
    found = [float("inf")] * len(calls)
    for turn in range(repeats + 1):
        for k, call in enumerate(calls):
            start = time.process_time()
            call()
            found[k] = min(found[k], time.process_time() - start) if turn else found[k]
    return found


def spectral(name: str) -> str:
    """All metrics of the spectral group against sigma1 and sigma2 of the same masks."""
    import topo

    wiring = topo.trace(topo.models.build(name))
    masks = topo.generate("erk", wiring, density=0.1, rng=0)
    ours, theirs = least(
        lambda: topo.analyze(masks, wiring, metrics=["spectral"], threads=1),
        lambda: topo.analyze(masks, wiring, metrics=["sigma1", "sigma2"], threads=1),
    )
    return line(f"{name} at 90 %: spectral group", ours, "sigma1 and sigma2 alone", theirs, "<= 1.6x", ours / theirs)


def nulls() -> str:
    """A hundred masks of the same degrees, with paths, what is reached, and spectra of all layers."""
    import topo

    wiring = topo.trace(topo.models.build("resnet18"))
    masks = topo.generate("erk", wiring, density=0.05, rng=0)

    def scored(samples: int) -> None:
        topo.analyze(masks, wiring, metrics=NUMBERS, nulls={"same_degrees": samples}, rng=0, threads=2)

    scored(1)
    start = time.process_time()
    scored(100)
    ours, asked = time.process_time() - start, 20.0
    task = "resnet18 at 95 %: 100 null models, same_degrees, paths, nodes and spectra"
    return line(task, ours, "10 s on two cores", asked, "< 1x", ours / asked)


def magnitude(wired: bool) -> str:
    """`topo.pruners.prune` against a plain top-k of all weights, which draws among equals as it likes."""
    import torch

    import topo
    from topo.pruners import prune

    model = topo.models.build("resnet18")
    wiring = topo.trace(model) if wired else None

    def plain() -> dict[str, torch.Tensor]:
        weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
        scores = torch.cat([weight.abs().flatten() for weight in weights.values()])
        keep = torch.zeros(len(scores), dtype=torch.bool)
        keep[torch.topk(scores, round(0.1 * len(scores))).indices] = True
        parts = keep.split([weight.numel() for weight in weights.values()])
        return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts)}

    ours, theirs = least(lambda: prune("magnitude", model, density=0.1, rng=0, wiring=wiring), plain)
    task = f"resnet18: magnitude, 90 %, {'its wiring given' if wired else 'the model traced, too'}"
    return line(task, ours, "plain torch.topk", theirs, "<= 1x", ours / theirs)


@contextlib.contextmanager
def unproved() -> Iterator[None]:
    """Spectra by one start of Lanczos to its residuals: what they cost where nobody asks if a larger one was missed."""
    from topo.graph import singular
    from topo.kernels.spectrum import lanczos

    def one_start(graph, rounding, through, levels=None):  # no proof, hence no Gram where edges are few
        found = np.empty(3), np.empty((2, graph.right)), np.empty((2, 2)), np.empty((2, 2))
        arrays = (through.products, through.indptr, through.indices, through.columns)
        start = singular._start(graph.right, 0)
        lanczos(*arrays, start, singular.TOLERANCE, 1e-300, 0.0, *found)
        return singular._Part(tuple(np.sqrt(np.maximum(found[0][:2], 0))), float(found[3].max()), False)

    kept = singular._lanczos, singular.LARGEST_PROVED
    singular._lanczos, singular.LARGEST_PROVED = one_start, 0
    try:
        yield
    finally:
        singular._lanczos, singular.LARGEST_PROVED = kept


def proofs() -> Iterator[str]:
    """What the proof that sigma2 is complete costs: the same spectra with it and without."""
    import topo
    from topo.graph.bipartite import Bipartite
    from topo.graph.singular import top_two
    from topo.masks import BitRows

    def row(task: str, spectra: Callable[[], object]) -> str:
        def bare() -> None:
            with unproved():
                spectra()

        ours, theirs = least(spectra, bare, repeats=9)
        return line(f"{task}: sigma1, sigma2, proved", ours, "without the proof", theirs, "<= 1.3x", ours / theirs, 4)

    for name in ("resnet20", "resnet18", "resnet50"):
        wiring = topo.trace(topo.models.build(name))
        for density in (0.1, 0.02):
            masks = topo.generate("erk", wiring, density=density, rng=0)
            number = functools.partial(topo.analyze, masks, wiring, metrics=["sigma1", "sigma2"], threads=1)
            yield row(f"{name} at {1 - density:.0%}", number)
    for shape in ((128, 1152), (256, 256), (256, 2304), (512, 512), (512, 4608)):
        for density in (0.5, 0.1, 0.02):
            words = [BitRows.of_mask(np.random.default_rng(k).random(shape) < density).words for k in range(3)]
            task = f"3 random layers of {shape[0]} x {shape[1]} at {1 - density:.0%}"
            yield row(task, lambda words=words, left=shape[1]: [top_two(Bipartite(rows, left)) for rows in words])


def line(task: str, ours: float, rival: str, theirs: float, goal: str, ratio: float, digits: int = 3) -> str:
    return f"| {task} | {ours:.{digits}f} | {rival} | {theirs:.{digits}f} | {ratio:.2f}x | {goal} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    options = parser.parse_args()
    lines = [machine(), "", "| task | ours, s | against | s | ours over it | goal |", "|---|---:|---|---:|---:|---|"]
    lines += [*map(spectral, ("resnet20", "resnet18", "resnet50")), nulls(), magnitude(True), magnitude(False)]
    lines += proofs()
    print("\n".join(lines))
    if options.write:
        rewrite(HERE / "README.md", MARKS, "\n".join(lines))


if __name__ == "__main__":
    main()
