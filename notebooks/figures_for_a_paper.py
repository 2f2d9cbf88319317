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
# # Figures for a paper
#
# Every figure is `topo.plots.KIND(data, ax=None, **style)`. Inside `with topo.plots.paper("neurips")` it has the width
# of the venue's column, type that is read on paper and fonts that venues accept. Nothing outside is changed. To put a
# figure into a paper, include the PDF at its own size: `\includegraphics{layers.pdf}`, without `width=`, or the type
# shrinks.
#
# **Where the masks are.** In the folder `masks` of the working directory, else in `notebooks/masks`: so the notebook
# runs from its own folder and from the root of the repository.

# %%
import re
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import topo
from topo.plots import paper, save

MASKS = Path("masks") if Path("masks").is_dir() else Path("notebooks/masks")
FIGURES = Path(tempfile.mkdtemp())  # name your own
print(f"figures go to {FIGURES}")

# %% [markdown]
# ## Widths and type
#
# In inches: a column, and with `wide=True` the whole text, which in one-column venues is the same. `ratio=` sets the
# height, as a share of the width.

# %%
before = dict(mpl.rcParams)
for venue in topo.plots.VENUES:
    with paper(venue):
        column = mpl.rcParams["figure.figsize"][0]
    with paper(venue, wide=True):
        text = mpl.rcParams["figure.figsize"][0]
    print(f"{venue:8} column {column:.2f} in, text {text:.2f} in")

with paper("neurips"):
    assert mpl.rcParams["figure.figsize"][0] == 5.5
    assert mpl.rcParams["pdf.fonttype"] == 42  # TrueType; venues refuse Type 3
    sizes = {key: mpl.rcParams[key] for key in ("axes.labelsize", "legend.fontsize", "xtick.labelsize")}
    print("type, in points:", sizes)
    assert min(sizes.values()) >= 7
assert dict(mpl.rcParams) == before  # nothing stays

# %% [markdown]
# ## What is drawn
#
# A mask that SynFlow made of ResNet-20, and masks of other methods that keep as many weights.

# %%
synflow = topo.read_masks(MASKS / "synflow_resnet20_d0.02.safetensors")
wiring = topo.trace(topo.models.build("resnet20"), (3, 32, 32))
masks = {
    "SynFlow": synflow,
    "ERK": topo.generate("erk", wiring, density=synflow.density, rng=0),
    "balance": topo.generate("balance", wiring, density=synflow.density, rng=0),
}
assert len({found.kept for found in masks.values()}) == 1
reports = {name: topo.analyze(found, wiring, mask_name=name) for name, found in masks.items()}

# %% [markdown]
# ## A number of each layer
#
# `layer_profile` takes any metric of layers and any number of masks: reports by name. `save` writes PDF, SVG or PNG by
# the ending, without a date in it.

# %%
with paper("neurips"):
    fig, ax = plt.subplots()
    topo.plots.layer_profile(reports, metric="density", ax=ax)
    save(fig, FIGURES / "layers.pdf")
    plt.show()

# %% [markdown]
# The file is as wide as the column, and holds no Type 3 font. Drawn again, it has the same bytes.

# %%
POINTS = 72  # to the inch; a PDF counts in points


def width_in_inches(path: Path) -> float:
    """Width of the page of a PDF."""
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) [\d.]+ ?\]", path.read_bytes())
    assert box is not None
    return float(box[1]) / POINTS


assert abs(width_in_inches(FIGURES / "layers.pdf") - 5.5) < 0.01
assert b"/Type3" not in (FIGURES / "layers.pdf").read_bytes()
first = (FIGURES / "layers.pdf").read_bytes()

with paper("neurips"):
    fig, ax = plt.subplots()
    topo.plots.layer_profile(reports, metric="density", ax=ax)
    save(fig, FIGURES / "layers.pdf")
    plt.close(fig)
assert (FIGURES / "layers.pdf").read_bytes() == first

# %% [markdown]
# ## Against a null model
#
# The grey band is where shuffled masks lie, which keep as many weights in each layer at random places. Few are drawn
# here; a paper wants more.

# %%
shuffled = [topo.generate("shuffle", wiring, source=synflow, rng=seed) for seed in range(10)]
null = [topo.analyze(found, wiring, metrics="kept,ramanujan_gap") for found in shuffled]
with paper("neurips"):
    fig, ax = plt.subplots()
    topo.plots.layer_profile(reports["SynFlow"], metric="ramanujan_gap", null=null, ax=ax)
    save(fig, FIGURES / "gap.pdf")
    plt.show()

# %% [markdown]
# ## Nodes against paths
#
# One point for each mask. A list of reports under one name is a method at several densities.

# %%
DENSITIES = (0.01, 0.02, 0.05)
series = {
    method: [
        topo.analyze(topo.generate(method, wiring, density=density, rng=0), wiring, metrics="paths")
        for density in DENSITIES
    ]
    for method in ("uniform", "erk", "balance")
}
with paper("neurips"):
    fig, ax = plt.subplots()
    topo.plots.nodes_paths({**series, "SynFlow": [reports["SynFlow"]]}, ax=ax)
    save(fig, FIGURES / "nodes_paths.pdf")
    plt.show()

# %% [markdown]
# ## Several panels in one figure
#
# Axes are yours: make them as you like and hand them over with `ax=`. Here the singular values of one layer beside the
# Ramanujan gap of all. A layer where a number is undefined has a mark, not a zero.

# %%
with paper("icml", wide=True, ratio=0.5):
    fig, (left, right) = plt.subplots(1, 2)
    topo.plots.spectrum(synflow, layer="blocks.8.conv2", ax=left)
    topo.plots.ramanujan_profile(reports["SynFlow"], ax=right)
    for ax, letter in ((left, "a"), (right, "b")):
        ax.set_xlabel(f"({letter}) {ax.get_xlabel()}")
    save(fig, FIGURES / "expanders.pdf")
    plt.show()
assert abs(width_in_inches(FIGURES / "expanders.pdf") - 6.75) < 0.01

# %% [markdown]
# ## The network as a graph
#
# Units are dots, dead units hollow, lines effective edges. Large networks are drawn in groups of units and with the
# heaviest edges only; the figure says so itself. Masks of a residual network need its wiring.

# %%
with paper("neurips"):
    fig, ax = plt.subplots()
    topo.plots.layered_graph(synflow, wiring=wiring, ax=ax)
    save(fig, FIGURES / "graph.pdf")
    plt.show()

# %% [markdown]
# ## What masks share
#
# Intersection over union of each pair, and how many times what chance would share. A single column; two seeds of one
# method are a baseline that is easily forgotten.

# %%
pairs = {**masks, "ERK, other seed": topo.generate("erk", wiring, density=synflow.density, rng=1)}
with paper("icml", ratio=0.8):
    fig, ax = plt.subplots()
    topo.plots.mask_overlap(pairs, ax=ax)
    save(fig, FIGURES / "overlap.pdf")
    plt.show()

# %% [markdown]
# ## Your own touch
#
# `**style` goes to the lines, and what comes back is an ordinary matplotlib object.

# %%
with paper("cvpr"):
    fig, ax = plt.subplots()
    topo.plots.degree_distribution(synflow, layer="blocks.0.conv1", ax=ax, linewidth=1.5)
    ax.set_ylabel("share of channels")
    save(fig, FIGURES / "degrees.pdf")
    plt.show()

# %% [markdown]
# A table of runs with `method`, `density` and `accuracy` gives curves with intervals:
# `topo.plots.accuracy_sparsity(runs)`, in the notebook `generate_and_train`. `topo list plots` names every kind, and
# `topo plot KIND FILES -o figure.pdf` draws from the command line.

# %%
written = sorted(path.name for path in FIGURES.iterdir())
print(written)
assert all(b"/Type3" not in path.read_bytes() for path in FIGURES.iterdir())
assert np.array_equal(mpl.rcParams["figure.figsize"], before["figure.figsize"])
assert len(written) == 7
