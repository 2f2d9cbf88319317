"""MobileNets: depthwise convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topo.models import model
from topo.models.options import Choice

if TYPE_CHECKING:
    from torch import nn


@model("Sandler et al. 2018, table 2", stem=Choice(("imagenet", "tiny", "cifar")))
def mobilenetv2(classes: int, stem: str) -> nn.Module:
    """MobileNetV2 at width 1.

    torchvision's parameter names: features.0.0, features.2.conv.0.0, classifier.1. stem=imagenet has the paper's
    strides, 32 in all, for 224x224 images. stem=cifar keeps the full resolution through the first convolution and the
    stage of 24 channels, so that 32x32 images end as 4x4 maps; stem=tiny is the same net for 64x64 images and 200
    classes. No stem changes a shape.
    """
    from topo.models.nets.mobilenet import MobileNetV2

    return MobileNetV2(classes, small_images=stem != "imagenet")
