"""Residual networks: the CIFAR ones, the ImageNet ones with three stems, and wide ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topo.models import model
from topo.models.options import Choice, Count

if TYPE_CHECKING:
    from torch import nn

_CIFAR = "He et al. 2016, section 4.2"
_IMAGENET = "He et al. 2016, table 1"
_SHORTCUTS = Choice(("conv", "pad"))
_STEMS = Choice(("imagenet", "tiny", "cifar"))
_BRANCHES = Choice(("plain", "stable"))


@model(_CIFAR, shape=(3, 32, 32), classes=Count(10), shortcut=_SHORTCUTS, branches=_BRANCHES)
def resnet20(classes: int, shortcut: str, branches: str) -> nn.Module:
    """ResNet-20 for CIFAR.

    Parameter names as in open_lth and Synaptic-Flow: conv, bn, blocks.3.conv1, blocks.3.shortcut.0, fc. shortcut=conv
    is their 1x1 convolution with batch norm where the width doubles (270,896 weights with 10 classes); shortcut=pad is
    the paper's option A: every second pixel, zeros for the new channels, no parameter. branches=stable multiplies each
    of the L residual branches by L**-0.5 (Hayou et al. 2021, section 5); no parameter changes.
    """
    return _cifar(20, classes, shortcut, branches)


@model(_CIFAR, shape=(3, 32, 32), classes=Count(10), shortcut=_SHORTCUTS, branches=_BRANCHES)
def resnet32(classes: int, shortcut: str, branches: str) -> nn.Module:
    """ResNet-32 for CIFAR.

    Names and options of resnet20.
    """
    return _cifar(32, classes, shortcut, branches)


@model(_CIFAR, shape=(3, 32, 32), classes=Count(10), shortcut=_SHORTCUTS, branches=_BRANCHES)
def resnet44(classes: int, shortcut: str, branches: str) -> nn.Module:
    """ResNet-44 for CIFAR.

    Names and options of resnet20.
    """
    return _cifar(44, classes, shortcut, branches)


@model(_CIFAR, shape=(3, 32, 32), classes=Count(10), shortcut=_SHORTCUTS, branches=_BRANCHES)
def resnet56(classes: int, shortcut: str, branches: str) -> nn.Module:
    """ResNet-56 for CIFAR.

    Names and options of resnet20.
    """
    return _cifar(56, classes, shortcut, branches)


@model(_CIFAR, shape=(3, 32, 32), classes=Count(10), shortcut=_SHORTCUTS, branches=_BRANCHES)
def resnet110(classes: int, shortcut: str, branches: str) -> nn.Module:
    """ResNet-110 for CIFAR.

    Names and options of resnet20.
    """
    return _cifar(110, classes, shortcut, branches)


@model(_IMAGENET, stem=_STEMS, branches=_BRANCHES)
def resnet18(classes: int, stem: str, branches: str) -> nn.Module:
    """ResNet-18.

    torchvision's parameter names: conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, fc. stem=imagenet begins with a
    7x7 convolution of stride 2 and a 3x3 max-pool of stride 2, for 224x224 images. stem=tiny begins with a 3x3
    convolution of stride 1 and no max-pool, for 64x64 images (Synaptic-Flow's and NPB's Tiny-ImageNet net: 11,261,632
    weights with 200 classes; their own files name the same layers otherwise, in the same order). stem=cifar is the same
    net for 32x32 images and 10 classes. branches as in resnet20.
    """
    return _imagenet(18, classes, stem, branches)


@model(_IMAGENET, stem=_STEMS, branches=_BRANCHES)
def resnet34(classes: int, stem: str, branches: str) -> nn.Module:
    """ResNet-34.

    Names, stems and branches of resnet18.
    """
    return _imagenet(34, classes, stem, branches)


@model(f"{_IMAGENET}, stride in the 3x3 convolution as in torchvision", stem=_STEMS, branches=_BRANCHES)
def resnet50(classes: int, stem: str, branches: str) -> nn.Module:
    """ResNet-50.

    Names, stems and branches of resnet18.
    """
    return _imagenet(50, classes, stem, branches)


@model("Zagoruyko & Komodakis 2016, table 1", shape=(3, 32, 32), classes=Count(10), width=Count(10), branches=_BRANCHES)
def wrn28(classes: int, width: int, branches: str) -> nn.Module:
    """WRN-28-width for CIFAR, without dropout.

    Pre-activation blocks; parameter names of the usual torch version (xternalz/WideResNet-pytorch): conv1,
    block1.layer.0.conv1, block1.layer.0.convShortcut, bn1, fc. 36,479,194 parameters at width 10 with 10 classes.
    branches as in resnet20.
    """
    from topo.models.nets.wide_resnet import WideResNet

    return _with(branches, WideResNet(28, width, classes))


def _cifar(depth: int, classes: int, shortcut: str, branches: str) -> nn.Module:
    from topo.models.nets.cifar_resnet import CifarResNet

    return _with(branches, CifarResNet(depth, classes, shortcut))


def _imagenet(depth: int, classes: int, stem: str, branches: str) -> nn.Module:
    from topo.models.nets.resnet import Basic, Bottleneck, ResNet

    block = Bottleneck if depth == 50 else Basic
    counts = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
    return _with(branches, ResNet(block, counts, classes, small_images=stem != "imagenet"))


def _with(branches: str, net: nn.Module) -> nn.Module:
    from topo.models.nets.branches import scale_branches

    return scale_branches(net) if branches == "stable" else net
