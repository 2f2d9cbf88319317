"""Plain stacks: multilayer perceptrons, LeNets and the small convolutional nets of the lottery-ticket paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topo.models import model
from topo.models.options import Count, Sizes

if TYPE_CHECKING:
    from torch import nn

_LECUN = "LeCun et al. 1998"
_TICKET = "Frankle & Carbin 2019, figure 2"


@model("Rumelhart et al. 1986", sizes=Sizes((784, 300, 100, 10)))
def mlp(sizes: tuple[int, ...]) -> nn.Module:
    """Multilayer perceptron of any sizes, inputs first.

    ReLU between layers; weights fc1, fc2, and so on. An image is flattened.
    """
    from topo.models.nets.plain import MLP

    return MLP(sizes)


@model(_LECUN, shape=(784,), classes=Count(10))
def lenet300(classes: int) -> nn.Module:
    """LeNet-300-100: 784 inputs, 300 and 100 hidden units.

    Takes 784 values or a 1x28x28 image alike; weights fc1, fc2, fc3. 266,200 weights with 10 classes.
    """
    from topo.models.nets.plain import MLP

    return MLP((784, 300, 100, classes))


@model(f"{_LECUN}, in the Caffe variant of Han et al. 2015", shape=(1, 28, 28), classes=Count(10))
def lenet5(classes: int) -> nn.Module:
    """LeNet-5 for 28x28 images: 20 and 50 filters of 5x5, then 500 hidden units.

    The variant that pruning papers use. 430,500 weights with 10 classes: 500 + 25,000 + 400,000 + 5,000.
    """
    from topo.models.nets.plain import ConvStack

    return ConvStack((1, 28, 28), [[20], [50]], hidden=[500], classes=classes, kernel=5, padding=0)


@model("topo", shape=(1, 8, 8), classes=Count(10))
def digits_conv(classes: int) -> nn.Module:
    """Small convolutional net for the 8x8 digits.

    3x3 convolutions of 32, 64 and 64 filters with batch norm, max-pools between, a mean, one linear layer. 56,224
    weights with 10 classes: 288 + 18,432 + 36,864 + 640.
    """
    from topo.models.nets.digits import DigitsNet

    return DigitsNet(classes)


@model("Greydanus & Kobak 2024", shape=(40,), classes=Count(10))
def mnist1d_mlp(classes: int) -> nn.Module:
    """Multilayer perceptron for MNIST-1D: 40 inputs, 180 and 180 hidden units.

    41,400 weights with 10 classes.
    """
    from topo.models.nets.plain import MLP

    return MLP((40, 180, 180, classes))


@model("topo", shape=(784,), classes=Count(10))
def fashion_mlp(classes: int) -> nn.Module:
    """Small multilayer perceptron for 28x28 images: 64 and 64 hidden units.

    54,912 weights with 10 classes.
    """
    from topo.models.nets.plain import MLP

    return MLP((784, 64, 64, classes))


@model("topo", shape=(1, 28, 28), classes=Count(10))
def fashion_conv(classes: int) -> nn.Module:
    """Small convolutional net for 28x28 images: the layers of digits_conv.

    56,224 weights with 10 classes.
    """
    from topo.models.nets.digits import DigitsNet

    return DigitsNet(classes)


@model("topo", shape=(2048,), classes=Count(64))
def chars_mlp(classes: int) -> nn.Module:
    """Multilayer perceptron for the next character: 32 x 64 one-hot inputs, 128 and 128 hidden units.

    286,720 weights with 64 classes.
    """
    from topo.models.nets.plain import MLP

    return MLP((2048, 128, 128, classes))


@model(_TICKET, shape=(3, 32, 32), classes=Count(10))
def conv2(classes: int) -> nn.Module:
    """Conv-2 for CIFAR: two 3x3 convolutions, two layers of 256 units.

    4,300,992 weights with 10 classes, 38,592 of them in convolutions.
    """
    return _conv(1, classes)


@model(_TICKET, shape=(3, 32, 32), classes=Count(10))
def conv4(classes: int) -> nn.Module:
    """Conv-4 for CIFAR: four 3x3 convolutions, two layers of 256 units.

    2,425,024 weights with 10 classes, 259,776 of them in convolutions.
    """
    return _conv(2, classes)


@model(_TICKET, shape=(3, 32, 32), classes=Count(10))
def conv6(classes: int) -> nn.Module:
    """Conv-6 for CIFAR: six 3x3 convolutions, two layers of 256 units.

    2,261,184 weights with 10 classes, 1,144,512 of them in convolutions. The paper prints 1.7 M in all, which the net
    that it draws does not have; its 1.1 M in convolutions agrees.
    """
    return _conv(3, classes)


def _conv(pairs: int, classes: int) -> nn.Module:
    from topo.models.nets.plain import ConvStack

    plan = [[64, 64], [128, 128], [256, 256]][:pairs]
    return ConvStack((3, 32, 32), plan, hidden=[256, 256], classes=classes, kernel=3, padding=1)
