"""Layers, losses and the network that holds them.

Activations are NHWC, weights KRSC; names are torch's. float32 by default, float64 after
``astype``. `stapes.nn.convert` brings in weights of other layouts.
"""

from stapes.losses import CrossEntropyLoss, MSELoss
from stapes.nn import convert
from stapes.nn.activation import Dropout, ReLU, Softmax
from stapes.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from stapes.nn.layer import Layer, from_config
from stapes.nn.linear import Flatten, Linear
from stapes.nn.norm import BatchNorm2d
from stapes.nn.parameter import Parameter
from stapes.nn.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d, TimePool, Upsample2d
from stapes.nn.sequential import Residual, Sequential

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Layer",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Softmax",
    "TimePool",
    "Upsample2d",
    "convert",
    "from_config",
]
