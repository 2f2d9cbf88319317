"""Sphinx: `make docs` builds the site into docs/_build/html. No network is needed, and warnings are errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Kernels as plain functions: autodoc sees their signatures and docstrings, and nothing is compiled.
os.environ["NUMBA_DISABLE_JIT"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

from topo._version import __version__

project = "topo"
release = version = __version__
copyright = "the authors of topo, Apache-2.0"
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_design",
    "machinery.docstrings", "machinery.mathml", "machinery.pages",
]  # fmt: skip
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
myst_dmath_double_inline = True
myst_heading_anchors = 3
smartquotes = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"topo {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["topo.css"]
html_copy_source = False
html_show_sphinx = False
