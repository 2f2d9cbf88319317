"""topo: exact graph topology of neural-network pruning masks.

The names below load on first use, so that `import topo` brings neither torch nor matplotlib nor networkx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from topo._support.lazy import keep_names, load
from topo._version import __version__

if TYPE_CHECKING:
    from topo.analyze import analyze
    from topo.analyze_files import analyze_files
    from topo.errors import TopoError
    from topo.evaluate import Evaluation, evaluate
    from topo.files import read_masks, read_weights, write_masks
    from topo.generate import generate
    from topo.graph import build_graph
    from topo.interop import from_networkx, to_networkx, to_scipy
    from topo.masks import MaskSet
    from topo.report import Report, Reports, read_reports
    from topo.shrink import Shrunk, shrink
    from topo.sweep import sweep
    from topo.trace import rule, trace
    from topo.train import MaskCallback, apply_masks, imp, strip_masks, train, train_many, verify_masks
    from topo.wiring import Wiring, chain

_HOME = {
    "Evaluation": "topo.evaluate",
    "MaskCallback": "topo.train",
    "MaskSet": "topo.masks",
    "Report": "topo.report",
    "Reports": "topo.report",
    "Shrunk": "topo.shrink",
    "TopoError": "topo.errors",
    "Wiring": "topo.wiring",
    "analyze": "topo.analyze",
    "analyze_files": "topo.analyze_files",
    "apply_masks": "topo.train",
    "build_graph": "topo.graph",
    "chain": "topo.wiring",
    "evaluate": "topo.evaluate",
    "from_networkx": "topo.interop",
    "generate": "topo.generate",
    "imp": "topo.train",
    "read_masks": "topo.files",
    "read_reports": "topo.report",
    "read_weights": "topo.files",
    "rule": "topo.trace",
    "shrink": "topo.shrink",
    "strip_masks": "topo.train",
    "sweep": "topo.sweep",
    "to_networkx": "topo.interop",
    "to_scipy": "topo.interop",
    "trace": "topo.trace",
    "train": "topo.train",
    "train_many": "topo.train",
    "verify_masks": "topo.train",
    "write_masks": "topo.files",
}
_MODULES = (
    "data", "decompose", "errors", "formats", "generators", "graph", "interop", "masks", "metrics", "models",
    "networks", "nulls", "optimize", "plots", "prune", "pruners", "quotas", "report", "torch_prune", "views",
    "wiring",
)  # fmt: skip

__all__ = [
    "Evaluation",
    "MaskCallback",
    "MaskSet",
    "Report",
    "Reports",
    "Shrunk",
    "TopoError",
    "Wiring",
    "__version__",
    "analyze",
    "analyze_files",
    "apply_masks",
    "build_graph",
    "chain",
    "evaluate",
    "from_networkx",
    "generate",
    "imp",
    "read_masks",
    "read_reports",
    "read_weights",
    "rule",
    "shrink",
    "strip_masks",
    "sweep",
    "to_networkx",
    "to_scipy",
    "trace",
    "train",
    "train_many",
    "verify_masks",
    "write_masks",
]


keep_names(__name__)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"topo.{name}")
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
