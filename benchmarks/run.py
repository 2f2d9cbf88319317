"""Measure topo against real alternatives in one run, and write the table of benchmarks/README.md.

    python benchmarks/run.py [--quick] [--only packing,paths,...]

Every row is a task: our time, the alternative's time on the same data in the same process, and their ratio (above 1x
we are faster). Times are the minimum of several calls, on one thread; the first call, which compiles
kernels into an empty cache, stands in a column of its own.
"""

from __future__ import annotations

import os

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

import argparse
import copy
import math
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
TABLE = ("<!-- table: written by benchmarks/run.py -->", "<!-- end of table -->")
HEADLINES = ("<!-- headlines: written by benchmarks/run.py -->", "<!-- end of headlines -->")
# The rows that docs/speed.md repeats: (start of the task, start of the rival), strong and weak ones.
CHOSEN = (
    ("pack 4096 x 11008 float32, 90%", "scipy"),
    ("resnet18:stem=tiny at 90 %: floats", "float64 ones"),
    ("resnet50:stem=tiny at 90 %: floats", "float64 ones"),
    ("resnet18 at 90 %: floats", "networkx"),
    ("resnet20 at 90 %: exact", "Python"),
    ("resnet50 at 90 %: exact", "Python"),
    ("vgg16 at 50%", "scipy svds"),
    ("vgg16 at 98%", "scipy svds"),
    ("resnet34 at 95 %", "networkx"),
    ("resnet18:stem=tiny: SynFlow", "plain loop"),
    ("vgg16:classes=100: PHEW, 99%", "one walk"),
    ("NPB layer 32 x 64 x 9", "MILP"),
)
MASK = HERE.parent / "notebooks" / "masks" / "synflow_resnet20_d0.02.safetensors"


@dataclass
class Row:
    """One line of the table, times in seconds. goal: the ratio asked for, as text."""

    group: str
    task: str
    ours: float
    rival: str
    theirs: float
    first: float | None = None
    goal: str = ""

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def best(function: Callable[[], object], repeats: int = 7, limit: float = 5.0) -> tuple[float, float]:
    """(minimum of `repeats` calls, seconds of the first call); stops repeating after `limit` seconds."""
    start = time.perf_counter()
    function()
    first = time.perf_counter() - start
    times, began = [], time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > limit:
            break
    return min(times), first


def packing(quick: bool) -> list[Row]:
    """Weights to bit rows, against one plain read of the same memory and against what people use."""
    import numpy as np
    import scipy.sparse
    import torch

    from topo.kernels.bits import pack

    rows_, cols = (1024, 2752) if quick else (4096, 11008)
    words = np.zeros((rows_, -(-cols // 64)), np.uint64)
    found = []
    for sparsity in (0.5, 0.9, 0.98):
        weights = np.random.default_rng(0).standard_normal((rows_, cols), dtype=np.float32)
        weights[np.random.default_rng(1).random((rows_, cols), dtype=np.float32) < sparsity] = 0
        ours, first = best(lambda w=weights: pack(w, words, False, 0))
        tensor = torch.from_numpy(weights)
        rivals = {
            "one plain read (numpy max)": (lambda w=weights: w.view(np.uint32).max(), ">= 0.5x"),
            "np.packbits(x != 0)": (lambda w=weights: np.packbits(w != 0, axis=1, bitorder="little"), "> 1x"),
            "scipy csr_matrix": (lambda w=weights: scipy.sparse.csr_matrix(w), "> 1x"),
            "torch.nonzero": (lambda t=tensor: torch.nonzero(t), "> 1x"),
        }
        for name, (rival, goal) in rivals.items():
            task = f"pack {rows_} x {cols} float32, {sparsity:.0%} zeros"
            found.append(Row("packing", task, ours, name, best(rival, 3)[0], first - ours, goal))
            first = ours  # compiled once
    return found


def network(name: str, density: float):
    """(float32 masks by name, wiring) of a built-in network with independent random masks."""
    import numpy as np

    from topo.networks import find_wiring

    wiring, rng = find_wiring(name), np.random.default_rng(0)
    masks = {
        layer: (rng.random(shape, dtype=np.float32) < density).astype(np.float32)
        for layer, shape in wiring.shapes.items()
    }
    return masks, wiring


def count(masks, wiring) -> None:
    """Float masks -> bits -> path counts both ways, effective nodes and effective masks."""
    import topo
    from topo.graph import paths as flow
    from topo.metrics import metrics

    graph = topo.build_graph(topo.MaskSet(masks), wiring)
    flow.counts(graph)
    flow.effective_words(graph)
    metrics["network:effective_nodes"](graph)


def forward_total(masks, wiring) -> object:
    """Float masks -> bits -> the number of paths, which is all that the networkx route gives."""
    import topo
    from topo.graph.arithmetic import Scaled
    from topo.graph.paths import Walk

    return Walk(topo.build_graph(topo.MaskSet(masks), wiring), Scaled).go_forward().forward_total()


def released_counter(model, masks, shape: tuple[int, ...]) -> Callable[[], object]:
    """Counting as the released NPB code does it: copy the network, float64 ones through it, and back."""
    import torch

    def run() -> float:
        net = copy.deepcopy(model).double().eval()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.zero_(), module.running_var.fill_(1.0)
                torch.nn.init.ones_(module.weight), torch.nn.init.zeros_(module.bias)
        for name, parameter in net.named_parameters():
            if name in masks:
                parameter.data = torch.from_numpy(masks[name]).double()
        total = net(torch.ones(1, *shape, dtype=torch.float64)).sum()
        total.backward()
        return sum(int((p.grad != 0).sum()) for n, p in net.named_parameters() if n in masks)

    return run


def paths(quick: bool) -> list[Row]:
    """Path counts, nodes and masks of whole networks, channel view."""
    import numpy as np

    import topo

    found = []
    # The released code's own networks: 3 x 3 stems and 64 x 64 images for the ResNets, 32 x 32 for the VGGs.
    nets = [("resnet18:stem=tiny", (3, 64, 64)), ("vgg19", (3, 32, 32)), ("resnet50:stem=tiny", (3, 64, 64))]
    for name, shape in nets[: 1 if quick else 3]:
        masks, wiring = network(name, 0.1)
        ours, first = best(lambda m=masks, w=wiring: count(m, w), 9)
        task = f"{name} at 90 %: floats -> bits -> counts both ways, nodes, masks"
        read = best(lambda m=masks: [mask.view(np.uint32).max() for mask in m.values()])[0]
        found.append(Row("paths", task, ours, "one plain read of the masks", read, first - ours, ">= 0.2x"))
        counter = released_counter(topo.models.build(name), masks, shape)
        found.append(
            Row("paths", task, ours, "float64 ones through a copy and back", best(counter, 3)[0], None, ">= 20x")
        )
    masks, wiring = network("resnet18", 0.1)
    ours, _ = best(lambda: forward_total(masks, wiring), 15)
    rival = best(lambda: networkx_paths(masks, wiring), 1, 0.0)[0]
    task = "resnet18 at 90 %: floats -> bits -> number of paths"
    found.append(Row("paths", task, ours, "networkx: edge by edge, then count", rival, None, ">= 500x"))
    return found


def networkx_paths(masks, wiring) -> int:
    """Paths by networkx, the plain way: a node a unit, an edge a kernel, Python integers in topological order."""
    import networkx as nx
    import numpy as np

    from topo.wiring import Layer

    graph = nx.DiGraph()
    for step in wiring.steps:
        if isinstance(step, Layer):
            kept = masks[step.name].reshape(*step.shape[:2], -1).sum(axis=2)
            for o, i in zip(*np.nonzero(kept)):
                graph.add_edge(int(step.reads[i]), step.start + int(o), weight=int(kept[o, i]))
        else:
            for operand in step.operands:
                graph.add_weighted_edges_from((int(u), step.start + k, 1) for k, u in enumerate(operand) if u >= 0)
    count = dict.fromkeys(map(int, wiring.inputs), 1)
    for unit in nx.topological_sort(graph):
        if unit not in count:
            count[unit] = sum(count[before] * edge["weight"] for before, edge in graph.pred[unit].items())
    return sum(count[int(unit)] for unit in wiring.outputs)


def exact(quick: bool) -> list[Row]:
    """Exact integers in limbs, against Python integers in numpy object arrays."""
    import numpy as np

    import topo
    from topo.graph import paths as flow
    from topo.wiring import Layer

    found = []
    for name in ("resnet20",) if quick else ("resnet20", "resnet18", "resnet50"):
        masks, wiring = network(name, 0.1)
        packed = topo.MaskSet(masks)
        ours, first = best(lambda w=wiring, p=packed: flow.exact_paths(topo.build_graph(p, w)))
        matrices = {n: m.reshape(*m.shape[:2], -1).sum(axis=2).astype(int).astype(object) for n, m in masks.items()}

        def python_integers(w=wiring, matrices=matrices) -> int:
            values = np.zeros(w.n_units + 1, object)
            values[w.inputs] = 1
            for step in w.steps:
                if isinstance(step, Layer):
                    values[step.start : step.stop] = np.dot(matrices[step.name], values[step.reads])
                else:
                    values[step.start : step.stop] = sum(values[operand] for operand in step.operands)
            return int(values[w.outputs].sum())

        assert python_integers() == flow.exact_paths(topo.build_graph(packed, wiring))
        theirs = best(python_integers, 1, 0.0)[0]
        goal = "ours < 0.1 s" if name == "resnet50" else ""
        found.append(
            Row("exact", f"{name} at 90 %: exact number of paths", ours, "Python integers", theirs, first - ours, goal)
        )
    return found


def spectra(quick: bool) -> list[Row]:
    """sigma1 and sigma2 of the layers of a network, from bits, against ARPACK and against the papers' route."""
    import tracemalloc

    import numpy as np

    import topo
    from topo.graph.bipartite import Bipartite
    from topo.graph.singular import top_two
    from topo.metrics.spectral import spectra as certified

    def values(masks, wiring):
        return certified(topo.build_graph(masks, wiring))

    found: list[Row] = []
    nets = ("resnet20",) if quick else ("resnet34", "resnet50", "vgg16", "vgg19")
    for name in nets:
        for sparsity in (0.5, 0.9, 0.98):
            floats, wiring = network(name, 1 - sparsity)
            masks = topo.MaskSet(floats)
            ours, first = best(lambda m=masks, w=wiring: values(m, w), 5)
            task = f"{name} at {sparsity:.0%}: sigma1, sigma2 of all layers"
            goal = ">= 5x" if sparsity < 0.95 else ">= 2x"
            found.append(Row("spectra", task, ours, "scipy svds, arpack", arpack(floats), first - ours, goal))
    floats, wiring = network(nets[0], 0.05)
    masks = topo.MaskSet(floats)
    ours, _ = best(lambda: values(masks, wiring), 5)
    start = time.perf_counter()
    for mask in floats.values():
        square_adjacency(mask.reshape(len(mask), -1))
    theirs = time.perf_counter() - start
    task = f"{nets[0]} at 95 %: as above"
    found.append(Row("spectra", task, ours, "networkx by edges, eigsh of the square adjacency", theirs, None, ">= 50x"))
    rows_, cols = (512, 1376) if quick else (4096, 11008)
    mask = (np.random.default_rng(0).random((rows_, cols), dtype=np.float32) < 0.5).astype(np.float32)
    words = topo.MaskSet({"a": mask}).rows("a").words
    ours, _ = best(lambda: top_two(Bipartite(words, cols)), 3)
    tracemalloc.start()
    top_two(Bipartite(words, cols))
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    task = f"{rows_} x {cols} at 50 %: sigma1, sigma2 in {peak:.0f} MB"
    found.append(Row("spectra", task, ours, "scipy svds, arpack", arpack({"a": mask}), None, "ours < 1 s, 300 MB"))
    for name, goal in (("resnet20", "ours < 0.05 s"), ("resnet50", "ours < 0.5 s")):
        floats, wiring = network(name, 0.1)
        masks = topo.MaskSet(floats)
        ours, first = best(lambda m=masks, w=wiring: topo.analyze(m, w, threads=1), 5)
        task = f"{name} at 90 %: default analysis of packed masks"
        found.append(Row("spectra", task, ours, "scipy svds of its layers alone", arpack(floats), first - ours, goal))
    return found


def arpack(floats) -> float:
    """Seconds that scipy takes for the two largest singular values of all layers, given as CSR."""
    import numpy as np
    import scipy.sparse
    from scipy.sparse.linalg import svds

    matrices = [scipy.sparse.csr_matrix(mask.reshape(len(mask), -1), dtype=np.float64) for mask in floats.values()]
    starts = [np.random.default_rng(0).random(min(matrix.shape)) for matrix in matrices]
    start = time.perf_counter()
    for matrix, v0 in zip(matrices, starts):
        svds(matrix, 2, return_singular_vectors=False, v0=v0)
    return time.perf_counter() - start


def square_adjacency(mask) -> float:
    """sigma2 as the papers' code has it: a graph edge by edge, its square adjacency, three eigenvalues in float32."""
    import networkx as nx
    import numpy as np
    from scipy.sparse.linalg import eigsh

    graph = nx.Graph()
    for out, column in zip(*np.nonzero(mask)):
        graph.add_edge(int(column), mask.shape[1] + int(out))
    adjacency = nx.to_scipy_sparse_array(graph, dtype=np.float32, format="csr")
    return float(np.sort(np.abs(eigsh(adjacency, 3, which="LM", return_eigenvectors=False)))[0])


# What the first analysis in a process takes beyond the second, once numba runs.
LOAD = """
import sys, time, numba, numpy as np, topo
from topo.kernels import balance, bits, components, paths, reach, spectrum
from topo.networks import find_wiring
masks, wiring = topo.read_masks(sys.argv[1]), find_wiring("resnet20")
bits.pack(np.zeros((2, 3), np.uint8), np.zeros((2, 1), np.uint64), False, 0)
def timed():
    start = time.perf_counter()
    topo.analyze(masks, wiring, threads=1)
    return time.perf_counter() - start
first = timed()
print(first - timed())
"""


def command(quick: bool) -> list[Row]:
    """Whole commands in fresh processes: warm, and with an empty kernel cache."""
    topo_ = [sys.executable, "-m", "topo", "analyze", str(MASK), "--model", "resnet20", "--json", os.devnull]

    def run(**environment: str) -> float:
        start = time.perf_counter()
        subprocess.run(topo_, check=True, capture_output=True, env={**os.environ, **environment})
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        cold = run(NUMBA_CACHE_DIR=folder)
        warm = min(run(NUMBA_CACHE_DIR=folder) for _ in range(5))
    code = "import torch, numpy"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    torch_ = time.perf_counter() - start
    task = "topo analyze, ResNet-20 safetensors: whole command"
    whole = Row("command", task, warm, "python -c 'import torch'", torch_, cold - warm, "ours < 1.5 s, first < 10 s")
    load = min(float(subprocess.check_output([sys.executable, "-c", LOAD, str(MASK)])) for _ in range(5))
    return [
        whole,
        Row("command", "kernels of an analysis: load from the cache", load, "the time asked for", 0.2, None, "> 1x"),
    ]


def files(quick: bool) -> list[Row]:
    """Opening a plain file and packing its masks, against the same bytes opened by the library that wrote them."""
    import torch
    from safetensors.torch import load_file, save_file

    from topo.containers.opening import open_container

    generator = torch.Generator().manual_seed(0)
    sizes = {"20 small layers": (20, 16)} if quick else {"20 small layers": (20, 16), "12 layers of 2.4e6": (12, 512)}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (depth, width) in sizes.items():
            masks = {
                f"l{k}.weight": (torch.rand(width, width, 3, 3, generator=generator) < 0.1).float()
                for k in range(depth)
            }
            plain = {"torch": Path(folder, "m.pt"), "safetensors": Path(folder, "m.safetensors")}
            torch.save(masks, plain["torch"])
            save_file(masks, plain["safetensors"])
            rivals = {"torch": lambda path: torch.load(path, weights_only=True), "safetensors": load_file}
            for kind, path in plain.items():
                ours, first = best(lambda p=path: [t.bits("w") for t in open_container(p).content.values()], 200, 2.0)
                theirs = best(lambda p=path, load=rivals[kind]: load(p), 200, 2.0)[0]
                task = f"a {kind} file of {name}: open, pack to bits"
                found.append(Row("files", task, ours, f"{kind} opens it", theirs, first))
    return found


def scale(quick: bool) -> list[Row]:
    """Cost per parameter from small to large: dense chains of square layers, float32 masks to nodes and counts."""
    import numpy as np

    from topo.masks import MaskSet
    from topo.wiring import chain

    found = []
    for width, depth in (
        [(160, 4), (512, 4), (1600, 4)] if quick else [(160, 4), (512, 4), (1600, 4), (5000, 2), (7100, 4)]
    ):
        rng = np.random.default_rng(0)
        masks = {f"l{k}": (rng.random((width, width), dtype=np.float32) < 0.1).astype(np.float32) for k in range(depth)}
        wiring = chain(MaskSet(masks))
        size = width * width * depth
        ours, _ = best(lambda m=masks, w=wiring: count(m, w), 2000, 1.0)
        read = best(lambda m=masks: [mask.view(np.uint32).max() for mask in m.values()], 2000, 1.0)[0]
        task = f"{size:.1e} parameters: {1e9 * ours / size:.2f} ns each"
        found.append(Row("scale", task, ours, "one plain read of the masks", read, None, ""))
    return found


def memory(quick: bool) -> list[Row]:
    """Peak memory of `topo analyze` on one large safetensors file, beyond that on a tiny one."""
    import numpy as np
    from safetensors.numpy import save_file

    def peak(path: Path) -> int:
        # VmHWM, not ru_maxrss: the latter starts from what this process held when it forked.
        code = (
            "import sys; from pathlib import Path; from topo.cli import main; main(sys.argv[1:]); "
            "lines = Path('/proc/self/status').read_text().splitlines(); "
            "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')), file=sys.stderr)"
        )
        line = [sys.executable, "-c", code, "analyze", str(path), "--json", os.devnull, "--quiet"]
        done = subprocess.run(line, check=True, capture_output=True, text=True)
        return int(done.stderr.split()[-1]) * 1024

    width, depth = (1024, 4) if quick else (4096, 6)
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.safetensors"), Path(folder, "large.safetensors")
        for path, n in ((small, 16), (large, width)):
            rng = np.random.default_rng(0)
            save_file(
                {f"l{k}.weight": (rng.random((n, n), dtype=np.float32) < 0.1).astype(np.float32) for k in range(depth)},
                path,
            )
        size = width * width * depth
        peak(small)  # fills the kernel cache: compiling takes memory of its own
        each = (peak(large) - peak(small)) / size
    row = Row("memory", f"topo analyze, {size:.1e} float32 parameters: peak bytes a parameter, file included", 0, "", 0)
    row.ours, row.rival, row.theirs, row.goal = each, "the file alone", 4.0, "<= 4 + 1.5"
    return [row]


def released_synflow(model, shape: tuple[int, ...], density: float, rounds: int) -> Callable[[], object]:
    """SynFlow as its released code does it, in float64: all signs off and on, masks multiplied in every layer of every
    pass, gradients for everything, and a k-th value over all scores, in each round."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def run() -> dict[str, object]:
        net = copy.deepcopy(model).double().eval()
        layers = {f"{n}.weight": m for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        masks = {name: torch.ones_like(layer.weight) for name, layer in layers.items()}
        for name, layer in layers.items():
            if isinstance(layer, nn.Linear):
                layer.forward = lambda x, a=layer, m=masks[name]: F.linear(x, m * a.weight, a.bias)
            else:
                layer.forward = lambda x, a=layer, m=masks[name]: F.conv2d(x, m * a.weight, a.bias, a.stride, a.padding)
        size = sum(mask.numel() for mask in masks.values())
        for done in range(1, rounds + 1):
            signs = {name: torch.sign(values) for name, values in net.state_dict().items()}
            for values in net.state_dict().values():
                values.abs_()
            net(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
            scores = {}
            for name, layer in layers.items():
                scores[name] = torch.clone(layer.weight.grad * layer.weight).detach().abs_()
                layer.weight.grad.data.zero_()
            for name, values in net.state_dict().items():
                values.mul_(signs[name])
            flat = torch.cat([torch.flatten(score) for score in scores.values()])
            keep = round(size * density ** (done / rounds))
            threshold = torch.kthvalue(flat, size - keep).values
            for name, score in scores.items():
                masks[name].copy_(torch.where(score <= threshold, 0.0, 1.0))
        return {name: mask.numpy() for name, mask in masks.items()}

    return run


def one_walk_at_a_time(model, density: float) -> Callable[[], object]:
    """PHEW through a plain stack: a walk after the other, forwards and backwards in turn, a draw for each step."""
    import numpy as np

    weights = [p.detach().abs().double().flatten(2).numpy() for p in model.parameters() if p.ndim == 4]
    weights += [p.detach().abs().double()[:, :, None].numpy() for p in model.parameters() if p.ndim == 2]

    def run() -> int:
        rng = np.random.default_rng(0)
        kernels = [w.sum(axis=2) for w in weights]
        forth, back = [k / k.sum(axis=0) for k in kernels], [k / k.sum(axis=1, keepdims=True) for k in kernels]
        kept = [np.zeros(w.shape, bool) for w in weights]
        left, turn = round(density * sum(w.size for w in weights)), 0
        while left > 0:
            backwards = turn % 2
            unit = turn // 2 % (len(kernels[-1]) if backwards else kernels[0].shape[1])
            for level in reversed(range(len(weights))) if backwards else range(len(weights)):
                chances = back[level][unit] if backwards else forth[level][:, unit]
                other = rng.choice(len(chances), p=chances)
                place = (unit, other) if backwards else (other, unit)
                kernel_size = weights[level][place]
                tap = rng.choice(len(kernel_size), p=kernel_size / kernel_size.sum())
                left -= not kept[level][(*place, tap)]
                kept[level][(*place, tap)] = True
                unit = other
            turn += 1
        return turn

    return run


def pruners(quick: bool) -> list[Row]:
    """SynFlow and PHEW, against loops like the released ones."""
    import topo
    from topo.masks import MaskSet
    from topo.networks import find_wiring
    from topo.pruners import prune

    found = []
    rounds = 5 if quick else 100
    for name, shape in (("resnet18:stem=tiny", (3, 64, 64)), ("vgg16:classes=100", (3, 32, 32))):
        model = topo.models.build(name)
        ours = plain = None

        def mine(model=model, shape=shape) -> None:
            nonlocal ours
            ours = prune("synflow", model, density=0.01, rounds=rounds, input_shape=shape, threads=1)

        def theirs(model=model, shape=shape) -> None:
            nonlocal plain
            plain = released_synflow(model, shape, 0.01, rounds)()

        seconds_ = min(timed(mine) for _ in range(2))
        row = Row("pruners", f"{name}: SynFlow, {rounds} rounds, 99 %", seconds_, "", timed(theirs), goal=">= 2x")
        same = MaskSet(plain) == ours
        row.rival = f"plain loop in float64 ({'equal' if same else 'other'} masks)"
        found.append(row)
    wiring = find_wiring(name, shape)  # the one-walk loop knows its plain stack as well
    for density in (0.01,) if quick else (0.01, 0.1):

        def walks(density=density) -> None:
            prune("phew", model, density=density, input_shape=shape, wiring=wiring)

        seconds_, rival = min(timed(walks) for _ in range(3)), timed(one_walk_at_a_time(model, density))
        task = f"{name}: PHEW, {1 - density:.0%}"
        found.append(Row("pruners", task, seconds_, "one walk at a time", rival, goal=">= 20x"))
    return found


def small_stack():
    """Four convolutions with batch norms and a linear layer, as modules alone: a plain loop takes its ReLUs apart."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    parts, before = [], 3
    for width, stride in ((32, 1), (32, 2), (64, 2), (64, 2)):
        parts += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def in_rounds(model, density: float, rounds: int, score: Callable) -> dict[str, object]:
    """A plain loop: masked weights, scores of every weight, a k-th value over all of them, round after round."""
    import torch
    from torch import nn

    net = copy.deepcopy(model).double().eval()
    layers = {f"{n}.weight": m for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    masks = {name: torch.ones_like(values) for name, values in dense.items()}
    size = sum(values.numel() for values in dense.values())
    for done in range(1, rounds + 1):
        for name, layer in layers.items():
            layer.weight.data = dense[name] * masks[name]
        scores = score(net, masks)
        scores = {name: torch.where(masks[name] > 0, values, -1.0) for name, values in scores.items()}
        flat = torch.cat([values.flatten() for values in scores.values()])
        threshold = torch.kthvalue(flat, size - round(size * density ** (done / rounds))).values
        masks = {name: (values > threshold).double() for name, values in scores.items()}
    return {name: mask.numpy() > 0 for name, mask in masks.items()}


def plain_px(x) -> Callable:
    """PX with a copy of the network for each of its three passes."""
    import torch
    from torch import nn

    def score(net, masks: dict) -> dict:
        opened, paths, squared = (copy.deepcopy(net) for _ in range(3))
        gates = []
        for part in opened.modules():
            if isinstance(part, nn.ReLU):
                part.register_forward_hook(lambda part, given, made: gates.append(given[0] > 0))
        with torch.no_grad():
            opened(x)
            kept = iter(gates)
            for part in paths.modules():
                if isinstance(part, nn.ReLU):
                    part.forward = lambda value: value * next(kept)
            for values in paths.parameters():
                values.copy_(values != 0 if values.dim() > 1 else torch.zeros_like(values))
            for part in paths.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.reset_parameters()
            count = paths(x.square()).sum(0)
            for values in squared.parameters():
                values.square_()
        for part in squared.modules():
            if isinstance(part, nn.ReLU):
                part.forward = lambda value: value
        (squared(torch.ones_like(x[:1]))[0] * (count / count.max())).sum().backward()
        held = dict(squared.named_parameters())
        return {name: (held[name].grad * held[name]).detach() for name in masks}

    return score


def plain_ntk_sap(shape: tuple[int, ...], draws: int, examples: int, epsilon: float) -> Callable:
    """NTK-SAP with masks multiplied into two sets of weights; draws in the order of ours, from the same seed."""
    import numpy as np
    import torch
    from torch import nn
    from torch.func import functional_call

    torch.manual_seed(int(np.random.default_rng(0).spawn(2)[1].integers(2**63)))

    def score(net, masks: dict) -> dict:
        found = {name: torch.zeros_like(mask) for name, mask in masks.items()}
        norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
        for _ in range(draws):
            drawn = {n: torch.randn_like(m) * (2 / m[0].numel()) ** 0.5 for n, m in masks.items()}
            moved = {n: values + epsilon * torch.randn_like(values) for n, values in drawn.items()}
            x = torch.randn(examples, *shape, dtype=torch.float64)
            alive = {name: mask.clone().requires_grad_(True) for name, mask in masks.items()}

            def made(weights: dict, alive=alive, x=x):
                return functional_call(net, {n: w * alive[n] for n, w in weights.items()}, (x,))

            for norm in norms:
                norm.reset_parameters()
                norm.momentum = 1.0
                norm.train()
            with torch.no_grad():
                made(drawn)
            net.eval()
            (made(drawn) - made(moved)).square().sum().backward()
            for name, mask in alive.items():
                found[name] += mask.grad
        return {name: values.abs() for name, values in found.items()}

    return score


def scored_by_data(quick: bool) -> list[Row]:
    """PX and NTK-SAP against plain loops in float64."""
    import numpy as np
    import torch

    from topo.masks import MaskSet
    from topo.pruners import prune

    model, shape, rounds = small_stack(), (3, 32, 32), 3 if quick else 20
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((64, *shape)))
    noise = {"draws": 1, "examples": 32, "epsilon": 0.01}
    tasks = {
        "px": ({"batches": [(x, torch.arange(64) % 10)]}, lambda: plain_px(x)),
        "ntk_sap": (noise, lambda: plain_ntk_sap(shape, **noise)),
    }
    found = []
    for name, (given, plain) in tasks.items():
        made: dict[str, object] = {}

        def mine(name=name, given=given, made=made) -> None:
            how = {"density": 0.05, "rounds": rounds, "input_shape": shape, "threads": 1}
            made["ours"] = prune(name, model, **how, **given)

        def theirs(plain=plain, made=made) -> None:
            made["plain"] = MaskSet(in_rounds(model, 0.05, rounds, plain()))

        seconds_ = min(timed(mine) for _ in range(2))
        row = Row("pruners", f"four convolutions: {name}, {rounds} rounds, 95 %", seconds_, "", timed(theirs))
        row.rival = f"plain loop in float64 ({'equal' if made['plain'] == made['ours'] else 'other'} masks)"
        found.append(row)
    return found


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def optimizer(quick: bool) -> list[Row]:
    """Whole networks from a budget to masks, warm, in one thread; the rival is the time that was asked for."""
    from topo.networks import find_wiring
    from topo.optimize import methods

    tasks: list[tuple[str, str, float, dict[str, object], float]] = [
        ("npb", "resnet50", 0.1, {}, 0.3),
        ("npb", "vgg19", 0.1, {}, 0.3),
        ("balance", "resnet50", 0.1, {}, 1.0),
        ("balance", "resnet18:classes=200,stem=tiny", 0.1, {"mode": "paths"}, 2.0),
        ("balance", "resnet18:classes=200,stem=tiny", 0.02, {"mode": "paths"}, 2.0),
        ("balance", "resnet20", 0.02, {}, 1.0),
        ("balance", "resnet20", 0.02, {"mode": "paths"}, 2.0),
    ]
    found = []
    for name, model, density, options, goal in tasks[-2:] if quick else tasks:
        wiring = find_wiring(model)
        total = round(density * sum(layer.size for layer in wiring.layers))
        ours, first = best(partial(methods[name], wiring, total=total, **options), 3)
        mode = ", ".join(f"{key} {value}" for key, value in options.items())
        task = f"{name} {mode} {model.partition(':')[0]} at {1 - density:.0%}: budget to masks".replace("  ", " ")
        found.append(Row("optimizer", task, ours, "the time asked for", goal, first - ours, "> 1x"))
    return found


def layers(quick: bool) -> list[Row]:
    """One layer of Node-Path Balancing: the closed form against the integer program, built beforehand."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import bmat, csr_matrix, eye, kron

    from topo.optimize import solve_layer_npb

    found = []
    for a, b, kernel_size in ((16, 16, 9),) if quick else ((16, 16, 9), (32, 64, 9), (64, 32, 9)):
        budget, alpha, beta = a * b * kernel_size // 10, 0.01, 1.0
        paths = np.random.default_rng(0).integers(1, 100, a).astype(float)
        ours, first = best(partial(solve_layer_npb, paths, b, kernel_size, budget, alpha=alpha, beta=beta), 9)
        cells, rows, columns = a * b, kron(eye(a), np.ones((1, b))), kron(np.ones((1, a)), eye(b))
        largest = np.sort(paths)[::-1].repeat(b * kernel_size)[:budget].sum()
        gains = np.r_[
            np.repeat((1 - alpha) * paths / largest, b), np.full(cells, beta / budget), np.full(a + b, alpha / (a + b))
        ]
        zero = csr_matrix
        matrix = bmat(
            [
                [-eye(cells), eye(cells), zero((cells, a)), zero((cells, b))],
                [-rows, zero((a, cells)), eye(a), zero((a, b))],
                [-columns, zero((b, cells)), zero((b, a)), eye(b)],
                [np.ones((1, cells)), zero((1, cells)), zero((1, a)), zero((1, b))],
            ]
        )
        upper = np.r_[np.zeros(cells + a + b), budget]
        bounds = Bounds(0, np.r_[np.full(cells, kernel_size), np.ones(cells + a + b)])
        whole = np.r_[np.ones(cells), np.zeros(cells + a + b)]
        constraint = LinearConstraint(matrix, -np.inf, upper)
        program = partial(milp, -gains, constraints=constraint, bounds=bounds, integrality=whole)
        theirs = best(program, 1, 0.0)[0]
        task = f"NPB layer {a} x {b} x {kernel_size}: optimal rows"
        found.append(Row("layers", task, ours, "MILP (HiGHS)", theirs, first - ours))
    return found


GROUPS = {
    "packing": packing,
    "paths": paths,
    "exact": exact,
    "spectra": spectra,
    "command": command,
    "files": files,
    "scale": scale,
    "memory": memory,
    "pruners": pruners,
    "scores": scored_by_data,
    "optimizer": optimizer,
    "layers": layers,
}


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 0.001:
        return f"{1e6 * value:.0f} us" if value > 0 else "0"
    return f"{1e3 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def cells(row: Row) -> list[str]:
    """Task, ours, against, theirs, ratio, goal, first call, as text."""
    if row.group == "memory":
        ours, theirs, ratio = f"{row.ours:.2f}", f"{row.theirs:.2f}", ""
    else:
        digits = 2 if row.ratio < 1 else 1 if row.ratio < 20 else 0
        ours, theirs, ratio = seconds(row.ours), seconds(row.theirs), f"{row.ratio:.{digits}f}x"
    first = seconds(max(row.first, 0.0)) if row.first is not None and row.first > 0.02 else ""
    return [row.task, ours, row.rival, theirs, ratio, row.goal, first]


def table(rows: list[Row]) -> str:
    lines = ["| task | ours | against | theirs | ratio | goal | first call |", "|---|---:|---|---:|---:|---|---:|"]
    return "\n".join(lines + [f"| {' | '.join(cells(row))} |" for row in rows])


def headlines(rows: list[Row]) -> str:
    """The chosen rows, without goals."""
    lines = ["| task | ours | against | theirs | ratio |", "|---|---:|---|---:|---:|"]
    for task, rival in CHOSEN:
        row = next(row for row in rows if row.task.startswith(task) and row.rival.startswith(rival))
        lines.append(f"| {' | '.join(cells(row)[:5])} |")
    return "\n".join(lines)


def rewrite(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put `text` between the two marks of a page."""
    before, _, rest = page.read_text().partition(marks[0])
    after = rest.partition(marks[1])[2]
    page.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}")


def machine() -> str:
    """Processor, cores and versions, a line."""
    import numba
    import numpy
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    ram = resource.getpagesize() * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = f"Python {platform.python_version()}"
    versions = [python, *(f"{module.__name__} {module.__version__}" for module in (numpy, numba, torch))]
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {math.ceil(ram)} GiB; {', '.join(versions)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; print the table, write nothing")
    parser.add_argument("--only", help=f"groups, with commas: {', '.join(GROUPS)}; print the table, write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache
        chosen = options.only.split(",") if options.only else list(GROUPS)
        rows = [row for name in chosen for row in GROUPS[name](options.quick)]
    text = table(rows)
    print(text)
    if options.quick or options.only:
        return
    rewrite(HERE / "README.md", TABLE, f"{machine()}\n\n{text}")
    rewrite(HERE.parent / "docs" / "speed.md", HEADLINES, headlines(rows))


if __name__ == "__main__":
    main()
