"""Formulas as MathML, made while the site is built: they show without a script, and without a network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

# latex2mathml sets "log x" without the blank that TeX puts on both sides of a function's name.
_FUNCTION = re.compile(r"<mi>(log|exp)</mi>(?!<mo stretchy=\"false\">)")
_BLANK = '<mspace width="0.17em"/>'


def mathml(formula: str, display: str = "inline") -> str:
    """A formula of TeX as MathML."""
    return _FUNCTION.sub(rf"{_BLANK}<mi>\1</mi>{_BLANK}", convert(formula, display=display))


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{mathml(node.astext())}</span>')
    raise nodes.SkipNode


def _display(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True}
