# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Analyse saved masks
#
# A mask file goes in; out come exact paths, living nodes, collapsed layers, spectra, and the same numbers of random
# masks that keep as much. It needs no weights, no data and no GPU.
#
# **Where the masks are.** In the folder `masks` of the working directory, else in `notebooks/masks`: so the notebook
# runs from its own folder and from the root of the repository. Put your own folder here.

# %%
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import topo
from topo.compare import compare

MASKS = Path("masks") if Path("masks").is_dir() else Path("notebooks/masks")

# %% [markdown]
# ## Read the files
#
# `topo.read_masks` understands the mask files of many pruners (`topo list formats`) and runs no code from them. A
# `MaskSet` is a mapping from parameter name to a read-only bool array; True means kept.

# %%
saved = {path.stem: topo.read_masks(path) for path in sorted(MASKS.glob("*.safetensors"))}
for name, found in saved.items():
    print(f"{name}: {found}, made by {found.provenance.get('method', 'an unknown method')}")
masks = saved["synflow_resnet20_d0.02"]
assert masks.kept == round(0.02 * masks.size)

# %% [markdown]
# ## Wire them up
#
# Masks say nothing of who feeds whom. The wiring comes from the model, any torch module: no weight is read.

# %%
wiring = topo.trace(topo.models.build("resnet20"), (3, 32, 32))
assert set(masks) == set(wiring.names)
report = topo.analyze(masks, wiring)
network = report.network

# %% [markdown]
# ## Exact paths and living nodes
#
# A path runs from an input channel to an output, over one kept weight in each layer that it crosses; the residual
# additions join branches. Their number $P$ is a Python integer of any size, not a float. A weight or unit is
# *effective* if it lies on a path.

# %%
paths = network["effective_paths"]
print(f"{paths:,} paths, 10^{network['log10_effective_paths']:.3f}")
print(f"{network['effective_nodes']} of {network['nodes']} nodes live")
print(f"{network['effective_params']:,} of {network['kept']:,} kept weights lie on a path")
assert isinstance(paths, int) and paths == 3117655989491274312148247039780
assert math.isclose(math.log10(paths), network["log10_effective_paths"], rel_tol=1e-12)
assert network["effective_nodes"] < network["nodes"] / 3

# %% [markdown]
# Kept, and yet on no path: which layers hold such weights? They cost memory and compute nothing.

# %%
layers = pd.DataFrame(report.layers).set_index("layer")
layers["useless"] = layers["kept"] - layers["effective_params"]
print(layers.loc[layers["useless"] > 0, ["shape", "kept", "useless"]].to_string())
assert layers["useless"].sum() == network["kept"] - network["effective_params"]

# %% [markdown]
# ## Collapse
#
# A layer has collapsed if none of its weights is effective. This mask has no such layer. Emptying the first layer of a
# residual branch takes its second layer along, but the skip still carries paths; emptying the first layer of the
# network ends everything.

# %%
EMPTIED = (None, "blocks.1.conv1.weight", "conv.weight")


def without(masks: topo.MaskSet, layer: str) -> topo.MaskSet:
    """The same masks with one layer emptied."""
    return topo.MaskSet({**masks, layer: np.zeros(masks.shapes[layer], bool)})


for layer in EMPTIED:
    damaged = topo.analyze(masks if layer is None else without(masks, layer), wiring, metrics="paths")
    left = damaged.network["effective_paths"]
    print(f"emptied: {layer}; collapsed layers: {len(damaged.collapsed)}, paths: {left:,}")
    if layer is None:
        assert damaged.collapsed == ()
    elif layer == "blocks.1.conv1.weight":
        assert damaged.collapsed == ("blocks.1.conv1.weight", "blocks.1.conv2.weight")
        assert 0 < left < paths
    else:
        assert len(damaged.collapsed) == len(masks) and left == 0

# %% [markdown]
# ## Spectra
#
# Each layer as a bipartite graph, an output channel on one side, an input channel at a kernel position on the other
# (the *kernel* view). With $\sigma_1 \ge \sigma_2$ the largest singular values and $d_l, d_r$ the mean degrees of units
# that have an edge, the layer is as good an expander as a Ramanujan graph where
# $\Delta_r = \sqrt{d_l - 1} + \sqrt{d_r - 1} - \sigma_2 \ge 0$.

# %%
columns = ["kept", "sigma1", "sigma2", "ramanujan_bound", "ramanujan_gap", "imdb", "components"]
print(layers[columns].round(3).to_string())
gap = layers["ramanujan_bound"] - layers["sigma2"]
assert np.allclose(gap, layers["ramanujan_gap"])
below = list(layers.index[layers["ramanujan_gap"] < 0])
print(f"below the bound: {', '.join(below) or 'none'}")

# %% [markdown]
# A number that is undefined is NaN with a reason, never 0. A mean over layers is over those where it is defined, and
# how many they are stands beside it.

# %%
print(f"mean IMDB {network['imdb']:.3f} over {network['imdb_layers']} of {len(layers)} layers")
assert network["imdb_layers"] == layers["imdb"].notna().sum() < len(layers)
assert math.isclose(network["imdb"], layers["imdb"].mean())
for text in sorted({note["note"] for note in report.notes if note["metric"] == "imdb"}):
    print("IMDB undefined:", text)

# %% [markdown]
# ## Against random masks that keep as much
#
# Two baselines at the same density: *ERK* draws at random with its own layer densities; *shuffle* keeps how many
# weights each layer of the mask keeps and draws their places. What differs from the second is in the places, not in the
# layer densities.

# %%
SEEDS = range(5)
METRICS = ["effective_params", "effective_nodes", "log10_effective_paths", "balance_gap", "ramanujan_gap"]
METRICS += ["ramanujan_bound", "sigma2"]
rivals = {
    "erk": [topo.generate("erk", wiring, density=masks.density, rng=seed) for seed in SEEDS],
    "shuffle": [topo.generate("shuffle", wiring, source=masks, rng=seed) for seed in SEEDS],
}
assert all(rival.kept == masks.kept for group in rivals.values() for rival in group)
assert all(rival[name].sum() == masks[name].sum() for rival in rivals["shuffle"] for name in masks)

rows = [{"masks": "synflow", **topo.analyze(masks, wiring, metrics=METRICS).network}]
for name, group in rivals.items():
    rows += [{"masks": name, **topo.analyze(rival, wiring, metrics=METRICS).network} for rival in group]
table = pd.DataFrame(rows).groupby("masks", sort=False)[METRICS].agg(["min", "max"])
print(table.T.round(3).to_string())

# %% [markdown]
# SynFlow's mask has more paths and fewer nodes than any of the shuffled ones: its score is the flow of paths through a
# weight, so it gathers weights where paths already run. Its Ramanujan gap is larger, too, but see why: units without
# an edge are dropped first, so weights gathered on few units have larger degrees and a larger bound. All of this is
# topology, and no statement on accuracy, which no metric here measures.

# %%
shuffled = table.loc["shuffle"]
assert network["log10_effective_paths"] > shuffled["log10_effective_paths", "max"]
assert network["effective_nodes"] < shuffled["effective_nodes", "min"]
assert network["ramanujan_bound"] > shuffled["ramanujan_bound", "max"]

# %% [markdown]
# How much do two masks share? By chance, layers that keep $a$ and $b$ of $n$ weights share $ab/n$ of them.

# %%
for name, group in rivals.items():
    total = compare(masks, group[0])
    chance = sum(entry["kept_a"] * entry["kept_b"] / entry["size"] for entry in total.layers)
    print(f"{name}: {total.total['both']} weights shared with synflow, {chance:.0f} by chance")
    assert abs(total.total["both"] - chance) < 6 * math.sqrt(chance)

# %% [markdown]
# ## A toy with a known answer
#
# `a` joins every one of 3 inputs to every one of 4 hidden units, $K_{3,4}$: its biadjacency matrix
# is all ones, so $\sigma_1 = \sqrt{3 \cdot 4}$ and $\sigma_2 = 0$. Hidden unit 0 feeds both outputs, the others one:
# $3 \cdot (2 + 1 + 1 + 1) = 15$ paths. A plain stack needs no model: `topo.chain` wires it.

# %%
toy = topo.MaskSet({"a.weight": np.ones((4, 3), bool), "b.weight": np.array([[1, 1, 1, 1], [1, 0, 0, 0]])})
toy_report = topo.analyze(toy, topo.chain(toy), metrics="all")
a, b = toy_report.layers
assert math.isclose(a["sigma1"], math.sqrt(12)) and abs(a["sigma2"]) < 1e-9
assert math.isclose(a["ramanujan_bound"], math.sqrt(4 - 1) + math.sqrt(3 - 1))
assert toy_report.network["effective_paths"] == 3 * (2 + 1 + 1 + 1) == 15
toy_report

# %% [markdown]
# The balance law of a chain: with $H(V)$ the entropy of the unit of an inner layer and $H(\pi)$ that of the parameter
# that a random path uses, $\log P + \sum H(V) = \sum H(\pi) \le \sum \log n$. Few paths over many nodes, or many paths
# over few: parameters pay for both. Here, by hand: the shares of the hidden units are $2/5, 1/5, 1/5, 1/5$.

# %%
shares = np.array([2, 1, 1, 1]) / 5
hidden = -float(shares @ np.log(shares))
assert math.isclose(b["path_entropy_width"], math.exp(hidden))
assert math.isclose(math.log(15) + hidden, toy_report.network["path_entropy"])
spent, budget = toy_report.network["path_entropy"], math.log(12) + math.log(5)
print(f"{math.log(15):.3f} + {hidden:.3f} = {spent:.3f} <= {budget:.3f} nats")
assert spent <= budget and math.isclose(1 - spent / budget, toy_report.network["balance_gap"])

# %% [markdown]
# ## What is NaN, and why
#
# Every undefined number carries its reason. Here: the assortativity of a complete graph (all degrees are equal), and
# the metrics that the Ramanujan papers gate to mean degrees of at least 3. A network without a path has $\log_{10} 0$,
# which is minus infinity, and no path entropy.

# %%
undefined = {(note["metric"], note["layer"]): note["note"] for note in toy_report.notes if note["metric"]}
for (metric, layer), reason in undefined.items():
    print(f"{metric} of {layer}: {reason}")
assert math.isnan(a["degree_assortativity"]) and ("degree_assortativity", "a.weight") in undefined
assert math.isnan(b["imdb"]) and b["gated"] == 1 and ("imdb", "b.weight") in undefined
assert a["gated"] == 0 and not math.isnan(a["imdb"])  # degrees 4 and 3

dead = topo.analyze(without(toy, "a.weight"), metrics="paths").network
assert dead["effective_paths"] == 0 and dead["log10_effective_paths"] == -math.inf
assert math.isnan(dead["path_entropy"])

# %% [markdown]
# Masks of a residual network form no plain stack. Where neither the file nor you name a model, layers are analysed one
# by one, and the numbers of the network are NaN with that reason, not a guess.

# %%
unwired = topo.analyze(topo.MaskSet(dict(masks)), metrics="paths")
assert math.isnan(unwired.network["effective_paths"]) and unwired.network["kept"] == masks.kept
print(next(note["note"] for note in unwired.notes if note["metric"] == "effective_paths"))

# %% [markdown]
# ## Save the report
#
# CSV is tidy (mask, metric, layer, view, value, unit, note), LaTeX needs `booktabs`, JSON has finite numbers or null
# and writes exact integers as text. The folder is a temporary one: name your own.

# %%
folder = Path(tempfile.mkdtemp())
few = "kept,density,effective_nodes,effective_paths,sigma2,imdb"
short = topo.analyze(masks, wiring, metrics=few, mask_name="synflow")
(folder / "synflow.csv").write_text(short.to_csv())
(folder / "synflow.tex").write_text(short.to_latex())
(folder / "synflow.json").write_text(short.to_json())

again = pd.read_csv(folder / "synflow.csv")
assert again.loc[again["metric"] == "imdb", "value"].isna().sum() == layers["imdb"].isna().sum()
assert json.loads((folder / "synflow.json").read_text())["reports"][0]["network"]["effective_paths"] == str(paths)
print(*short.to_latex().splitlines()[:8], f"... written to {folder}", sep="\n")
