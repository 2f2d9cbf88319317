"""Numbers as text: integers of any size in decimal, and short forms for tables."""

from __future__ import annotations

import math
from decimal import Decimal

DASH = "–"
# str(int) refuses beyond 4300 digits unless a process-wide limit is raised; below 640 digits it never does.
_CHUNK = 600
_DIGITS = 200_000


def finite(number: int | float) -> bool:
    """Whether a number is finite; an integer always is, also one beyond float64."""
    return isinstance(number, int) or math.isfinite(number)


def decimal(number: int) -> str:
    """All digits of an integer of any size, by splitting at powers of ten; no global limit is touched.

    >>> len(decimal(10**5000 - 1))
    5000
    """
    if number < 0:
        return "-" + decimal(-number)
    powers = [10**_CHUNK]
    while powers[-1] <= number:
        powers.append(powers[-1] ** 2)

    def digits(rest: int, level: int) -> str:
        """`rest` < powers[level], with leading zeros to the full width."""
        if level == 0:
            return str(rest).zfill(_CHUNK)
        high, low = divmod(rest, powers[level - 1])
        return digits(high, level - 1) + digits(low, level - 1)

    return digits(number, len(powers) - 1).lstrip("0") or "0"


def whole(text: str) -> int:
    """The integer of `decimal`, of up to 200,000 digits; ValueError for other text.

    >>> whole("1" + "0" * 5000) == 10**5000
    True
    """
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _DIGITS:
        raise ValueError(f"'{text[:40]}' is not a whole number of at most {_DIGITS:,} digits")

    def value(part: str) -> int:
        if len(part) <= _CHUNK:
            return int(part)
        half = len(part) // 2
        return value(part[:-half]) * 10**half + value(part[-half:])

    return -value(digits) if text.startswith("-") else value(digits)


def shown(number: int | float, unit: str = "") -> str:
    """A number for a table: counts with separators (5,418), shares to four places (0.0200), paths as 1.23e+30.

    NaN is a dash; minus infinity (the logarithm of no path) is "-inf".
    """
    if isinstance(number, int):
        if abs(number) < (10**6 if unit == "paths" else 10**15):
            return f"{number:,}"
        mantissa, _, exponent = f"{Decimal(number):.2e}".partition("e")
        return f"{mantissa}e{int(exponent):+03d}"
    if math.isnan(number):
        return DASH
    if math.isinf(number):
        return str(number)
    size = abs(number)
    if size >= 1e9 or 0 < size < 1e-3:
        return f"{number:.2e}"
    return f"{number:.4f}" if size < 10 else f"{number:,.2f}"
