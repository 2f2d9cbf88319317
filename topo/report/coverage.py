"""How much of a network was read, in a line: a part is never told as the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def left_out_line(coverage: Mapping[str, Any] | None) -> str | None:
    """The note on parameters without a mask; None if there are none.

    coverage: {"read": parameters, "left_out": parameters, "names": of those}.

    >>> left_out_line({"read": 30, "left_out": 10, "names": ["fc.weight"]})
    "1 weight without a mask left out: 'fc.weight'; 10 of 40 parameters (25 %)"
    """
    if not coverage or not coverage.get("names"):
        return None
    names = [str(name) for name in coverage["names"]]
    left, total = coverage["left_out"], coverage["left_out"] + coverage["read"]
    listed = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    count = f"{len(names)} weight{'s' * (len(names) > 1)}"
    return f"{count} without a mask left out: {listed}; {left:,} of {total:,} parameters ({100 * left / total:.3g} %)"
