"""A network of ours as one of PyTorch's, with the same weights."""

from __future__ import annotations

import importlib
from typing import Any

from stapes import nn


def convert(net: nn.Sequential) -> Any:
    """Return a torch.nn.Sequential that computes the same from the same samples as NCHW.

    Flatten keeps our order of columns, which with channels_last costs PyTorch nothing.

    Raises
    ------
    TypeError
        If a layer has no counterpart here.
    """
    torch = importlib.import_module("torch")
    return torch.nn.Sequential(*[_layer(layer, torch) for layer in net.layers])


def _layer(layer: nn.Layer, torch: Any) -> Any:
    t = torch.nn
    if isinstance(layer, nn.Conv2d):
        return _conv(layer, torch)
    if isinstance(layer, nn.Linear):
        out, wide = layer.weight.data.shape
        return _with_weights(t.Linear(wide, out, bias=layer.bias is not None), layer, torch)
    if isinstance(layer, nn.BatchNorm2d):
        return t.BatchNorm2d(layer.num_features)
    if isinstance(layer, nn.MaxPool2d):
        return t.MaxPool2d(layer.kernel_size)
    if isinstance(layer, nn.ReLU):
        return t.ReLU()
    if isinstance(layer, nn.Dropout):
        return t.Dropout(layer.p)
    if isinstance(layer, nn.TimePool) and layer.mode == "mean_max":
        return _function(torch, lambda x: torch.cat([x.mean(2, True), x.amax(2, True)], 1))
    if isinstance(layer, nn.GlobalAvgPool2d):
        return _function(torch, lambda x: x.mean((2, 3)))
    if isinstance(layer, nn.Flatten):
        return _function(torch, lambda x: x.permute(0, 2, 3, 1).flatten(1))
    raise TypeError(f"no PyTorch layer for {layer!r}")


def _conv(layer: nn.Conv2d, torch: Any) -> Any:
    K, R, S, C = layer.weight.data.shape
    C *= layer.groups
    bias = layer.bias is not None
    options = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    if layer.padding == "same" and any(stride > 1 for stride in _pair(layer.stride)):
        # PyTorch has no "same" with strides, and pads alike on both sides.
        raise TypeError(f"no PyTorch layer for {layer!r}: padding 'same' with a stride")
    made = torch.nn.Conv2d(C, K, (R, S), padding=layer.padding, bias=bias, **options)
    return _with_weights(made, layer, torch)


def _with_weights(made: Any, layer: Any, torch: Any) -> Any:
    weight = torch.from_numpy(layer.weight.data.copy())
    made.weight.data = weight.permute(0, 3, 1, 2) if weight.ndim == 4 else weight
    if layer.bias is not None:
        made.bias.data = torch.from_numpy(layer.bias.data.copy())
    return made


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _function(torch: Any, f: Any) -> Any:
    class Function(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return f(x)

    return Function()
