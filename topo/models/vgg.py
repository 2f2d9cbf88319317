"""VGG networks with batch norm, in the CIFAR form of the pruning papers and in the ImageNet form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topo.models import model
from topo.models.options import Choice

if TYPE_CHECKING:
    from torch import nn

_SOURCE = "Simonyan & Zisserman 2015, table 1"
_STEMS = Choice(("cifar", "tiny", "imagenet"))
# Convolutions of each of the five stages, by depth; the stages are 64, 128, 256, 512 and 512 channels wide.
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@model(_SOURCE, stem=_STEMS)
def vgg11(classes: int, stem: str) -> nn.Module:
    """VGG-11 with batch norm.

    Names and stems of vgg16.
    """
    return _vgg(11, classes, stem)


@model(_SOURCE, stem=_STEMS)
def vgg13(classes: int, stem: str) -> nn.Module:
    """VGG-13 with batch norm.

    Names and stems of vgg16.
    """
    return _vgg(13, classes, stem)


@model(_SOURCE, stem=_STEMS)
def vgg16(classes: int, stem: str) -> nn.Module:
    """VGG-16 with batch norm.

    stem=cifar is the net of open_lth and Synaptic-Flow for 32x32 images: four max-pools, a mean, one linear layer,
    their names layers.0.conv, layers.0.bn, fc (14,761,664 weights with 100 classes). stem=imagenet is torchvision's net
    for 224x224 images: five max-pools, three linear layers (25088-4096-4096-classes), names features.0, classifier.0.
    stem=tiny is Synaptic-Flow's net for 64x64 images: the names of stem=imagenet, linear layers 2048-1024-1024-classes.
    """
    return _vgg(16, classes, stem)


@model(_SOURCE, stem=_STEMS)
def vgg19(classes: int, stem: str) -> nn.Module:
    """VGG-19 with batch norm.

    Names and stems of vgg16.
    """
    return _vgg(19, classes, stem)


def _vgg(depth: int, classes: int, stem: str) -> nn.Module:
    from topo.models.nets.vgg import VGG, CifarVGG

    if stem == "cifar":
        return CifarVGG(_STAGES[depth], classes)
    side, hidden = (7, 4096) if stem == "imagenet" else (2, 1024)
    return VGG(_STAGES[depth], classes, side, hidden)
