"""Layers that work on each element or each row: ReLU, Softmax, Dropout."""

from __future__ import annotations

from collections.abc import Mapping

from stapes import ops
from stapes.device import Array
from stapes.nn._args import fraction
from stapes.nn.layer import Layer, Shape


class ReLU(Layer):
    """``y = max(x, 0)``; NaN passes through."""

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(self, x: Array) -> Array:
        y = self._run("y", ops.relu_fwd, self._input(x))
        self._keep(y)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (y,) = self._kept()
        return self._run("dx", ops.relu_bwd, dy, y) if need_dx else None


class Softmax(Layer):
    """Softmax over the last axis.

    At the end of a network that is compiled with cross-entropy it is merged into the loss.
    """

    def __init__(self) -> None:
        super().__init__()

    def output_shape(self, input_shape: Shape) -> Shape:
        self._expect(len(input_shape) >= 1, "(..., classes)", input_shape)
        return input_shape

    def forward(self, x: Array) -> Array:
        y = self._run("y", ops.softmax_fwd, self._input(x))
        self._keep(y)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        (y,) = self._kept()
        return self._run("dx", ops.softmax_bwd, dy, y) if need_dx else None


class Dropout(Layer):
    """In training, zero each element with probability ``p`` and scale the rest by 1 / (1 - p).

    The mask is Philox4x32-10 under a key of the layer's seed, counted on by ``offset``: a network
    that is put back to the same `random_state` draws the same masks.

    Parameters
    ----------
    p : float
        In [0, 1).
    seed : int, optional
        See `Layer`.

    Attributes
    ----------
    offset : int
        Philox counters used so far.
    """

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.p = fraction("Dropout", "p", p)
        self.offset = 0
        self._device_offset: Array | None = None  # where a captured step's kernels read it

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    @property
    def key(self) -> int:
        """The 64-bit key of the mask's random numbers: from the seed and the place."""
        low, high = self._seed_sequence().generate_state(2)
        return int(low) | int(high) << 32

    def _reset(self) -> None:
        super()._reset()
        self.offset = 0

    def random_state(self) -> dict[str, int]:
        return {"offset": self.offset}

    def _load_random_state(self, state: Mapping[str, int]) -> None:
        self.offset = int(state["offset"])

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        if not self.training:
            return x
        key, offset = self.key, self.offset if self._device_offset is None else self._device_offset
        y = self._run("y", ops.dropout_fwd, x, self.p, seed=key, offset=offset)
        self.offset += -(-x.size // 4)
        self._keep(key, offset)
        return y

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        key, offset = self._kept()
        if not need_dx:
            return None
        return self._run("dx", ops.dropout_bwd, dy, self.p, seed=key, offset=offset)
