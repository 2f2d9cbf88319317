"""Networks of the papers, as `topo.models` builds them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from gradient_nets.table import enter


def image(side: int) -> tuple[int, ...]:
    return (1, 3, side, side)


def named(spec: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import topo.models

        return topo.models.build(spec)

    return build


enter("papers", "resnet20", named("resnet20"), image(32), densities=(0.2, 0.02, 0.005))
enter("papers", "resnet20, padded shortcuts", named("resnet20:shortcut=pad"), image(32), densities=(0.2, 0.02))
enter("papers", "resnet50", named("resnet50:classes=10"), image(64), densities=(0.02,))
enter("papers", "mobilenetv2", named("mobilenetv2"), image(64), densities=(0.5, 0.02))
