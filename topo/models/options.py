"""What an option of a network may hold, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_MOST_SIZES, _MOST_UNITS = 1000, 1 << 25
_COUNT = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Count:
    """A whole number from 1 to 999,999,999, such as the number of classes."""

    default: int
    allowed = "a whole number from 1 to 999999999"

    def read(self, text: str) -> int | None:
        """The number written as `text`; None if it is none."""
        return int(text) if _COUNT.fullmatch(text) else None

    @property
    def usage(self) -> str:
        """How the option is written: 'COUNT'."""
        return "COUNT"


@dataclass(frozen=True)
class Choice:
    """One of a few words; the first is the default."""

    words: tuple[str, ...]

    def read(self, text: str) -> str | None:
        """The word; None if it is not among them."""
        return text if text in self.words else None

    @property
    def default(self) -> str:
        """The first of the choices."""
        return self.words[0]

    @property
    def allowed(self) -> str:
        """What it may hold, in words."""
        return f"one of {', '.join(self.words)}"

    @property
    def usage(self) -> str:
        """How the option is written: its words with bars between."""
        return "|".join(self.words)


@dataclass(frozen=True)
class Sizes:
    """Units of each layer, inputs first: two counts or more, joined by hyphens."""

    default: tuple[int, ...]

    def read(self, text: str) -> tuple[int, ...] | None:
        """The counts written as `text`; None if there are fewer than two, or if one is not a count."""
        parts = text.split("-")
        if not 1 < len(parts) <= _MOST_SIZES or not all(map(_COUNT.fullmatch, parts)):
            return None
        sizes = tuple(map(int, parts))
        return sizes if sum(sizes) <= _MOST_UNITS else None

    @property
    def allowed(self) -> str:
        """What it may hold, in words."""
        most = f"up to {_MOST_SIZES:,} and {_MOST_UNITS:,} in all"
        return f"two whole numbers or more, {most}, each at least 1, as in {self.usage}"

    @property
    def usage(self) -> str:
        """How the option is written."""
        return "-".join(map(str, self.default))


Option = Count | Choice | Sizes


@dataclass(frozen=True)
class Images:
    """The images that a stem is made for: the shape of one, and how many classes there are."""

    shape: tuple[int, int, int]
    classes: int


# The option `stem` says how a network takes its images in; it sets the input shape and the default of `classes`.
STEMS: Mapping[str, Images] = MappingProxyType(
    {
        "imagenet": Images((3, 224, 224), 1000),
        "tiny": Images((3, 64, 64), 200),
        "cifar": Images((3, 32, 32), 10),
    }
)
