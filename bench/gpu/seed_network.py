"""The network that whole steps are measured on, in Stapes and in PyTorch.

Convolution 32 3x3 same, ReLU, pool 2, convolution 64, ReLU, pool 2, dense 64, ReLU, dense;
softmax cross-entropy and Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from device import Device, compiled

from stapes import nn, optim

CLASSES = 10
LR = 1e-3


def step_flops(size: int, channels: int) -> int:
    """Count the operations of a training step for one sample; conv1 needs no input gradient."""
    conv1 = 2 * size * size * 32 * 9 * channels
    conv2 = 2 * (size // 2) ** 2 * 64 * 9 * 32
    dense = 2 * (size // 4) ** 2 * 64 * 64 + 2 * 64 * CLASSES
    return 2 * conv1 + 3 * (conv2 + dense)


def ours(size: int, channels: int, device: str, precision: str) -> Any:
    """Return our network, compiled."""
    net = nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(None, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip
    net.build((size, size, channels), seed=0)
    net.compile(optim.Adam(lr=LR), device=device, precision=precision)
    return net


class Theirs:
    """PyTorch's network and step.

    Parameters
    ----------
    last : bool
        channels_last.
    half : torch.dtype, optional
        Autocast to this dtype.
    capturable : bool
        Can be captured in a CUDA graph.
    """

    def __init__(
        self, size: int, channels: int, device: Device, *, last: bool = False,
        half: torch.dtype | None = None, capturable: bool = False,
    ) -> None:  # fmt: skip
        flat = 64 * (size // 4) ** 2
        t = torch.nn
        torch.manual_seed(0)
        net = t.Sequential(
            t.Conv2d(channels, 32, 3, padding=1), t.ReLU(), t.MaxPool2d(2),
            t.Conv2d(32, 64, 3, padding=1), t.ReLU(), t.MaxPool2d(2),
            t.Flatten(), t.Linear(flat, 64), t.ReLU(), t.Linear(64, CLASSES),
        ).to(device.name)  # fmt: skip
        self.format = torch.channels_last if last else torch.contiguous_format
        self.net = net.to(memory_format=self.format)  # type: ignore[call-overload]
        self.device, self.half, self.capturable = device, half, capturable
        self.optimizer = torch.optim.Adam(
            net.parameters(), lr=LR, fused=True, capturable=capturable and device.cuda
        )
        self.loss, self.compiled = self._loss, False

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.half is None:
            return nullcontext()
        # The cache of cast weights must not live from one replay of a graph to the next.
        return torch.autocast(self.device.name, self.half, cache_enabled=not self.capturable)

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            return torch.nn.functional.cross_entropy(self.net(x), y)

    def compile(self, **how: Any) -> None:
        """Run forward and loss, and so their backward, through torch.compile."""
        self.loss, self.compiled = compiled(self._loss, **how), True

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Forward, backward, update; the loss stays on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        loss = self.loss(x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss

    def batch(self, x: torch.Tensor) -> torch.Tensor:
        """Return NHWC data as this network takes it."""
        x = x.permute(0, 3, 1, 2)
        return x.contiguous(memory_format=self.format)

    def take_weights(self, net: Any) -> None:
        """Copy the weights of ours, so that both start alike."""
        arrays = [p.data for p in net.parameters()]
        with torch.no_grad():
            for mine, array in zip(self.net.parameters(), arrays, strict=True):
                w = array.get() if hasattr(array, "get") else array
                mine.copy_(
                    torch.from_numpy(self._in_their_order(np.asarray(w, np.float32), mine.shape))
                )

    @staticmethod
    def _in_their_order(w: np.ndarray, shape: Any) -> np.ndarray:
        if w.ndim == 4:
            return np.ascontiguousarray(w.transpose(0, 3, 1, 2))
        if w.ndim == 2 and w.shape[1] % 64 == 0 and w.shape[1] > 64:  # after Flatten: H, W, C
            side = round((w.shape[1] // 64) ** 0.5)
            w = w.reshape(w.shape[0], side, side, 64).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(w).reshape(tuple(shape))


def rotating(f: Callable[..., Any], batches: list[tuple[Any, ...]]) -> Callable[[], Any]:
    """Return a call of ``f`` on one batch after another."""
    turn = -1

    def call() -> Any:
        nonlocal turn
        turn = (turn + 1) % len(batches)
        return f(*batches[turn])

    return call
