"""How a step's batch and numbers come to the device."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.device import Array, is_cupy
from stapes.train.runtime import Event, Runtime

_LR, _STEP, _OFFSETS = 0, 1, 2  # places in the words of `Numbers`


class Feed:
    """Brings batches to an array of the device, by two buffers in turn.

    While the device works on one batch, the next one is on its way beside it.
    """

    def __init__(self, runtime: Runtime, into: Array) -> None:
        self._runtime, self._into = runtime, into
        self._turns: Iterator[_Turn] | None = None

    def __call__(self, batch: Any) -> None:
        runtime, into = self._runtime, self._into
        if runtime.direct or is_cupy(batch):
            runtime.copy(batch, into)
            return
        if self._turns is None:
            self._turns = cycle([_Turn(runtime, into) for _ in range(2)])
        turn = next(self._turns)
        if turn.sent is not None:
            turn.sent.synchronize()
        np.copyto(turn.host, batch, casting="unsafe")
        turn.sent = runtime.upload_beside(turn.host, turn.device, turn.taken)
        runtime.follow(turn.sent)
        runtime.copy(turn.device, into)
        turn.taken = runtime.mark()


class _Turn:
    """One of the two buffers of a `Feed`, on the host and on the device."""

    def __init__(self, runtime: Runtime, like: Array) -> None:
        self.host = runtime.staging(like.shape, like.dtype)
        self.device = runtime.empty(like.shape, like.dtype)
        self.sent: Event | None = None  # the host's may be written again
        # The device's may be; its memory may come from work that still uses it.
        self.taken = runtime.mark()


class Numbers:
    """Learning rate, step count and dropout's offsets, in 8-byte words of the device."""

    def __init__(self, runtime: Runtime, dropouts: int) -> None:
        self._runtime, size = runtime, _OFFSETS + dropouts
        self._words = runtime.put(np.zeros(size, np.int64))
        self._slots = cycle(
            [_Slot(runtime.staging((size,), np.int64)) for _ in range(runtime.late + 1)]
        )
        self.lr = self._words[_LR : _LR + 1].view(np.float64)
        self.step = self._words[_STEP : _STEP + 1]

    def offset(self, i: int) -> Array:
        """Return dropout's offset, int64 (1,)."""
        return self._words[_OFFSETS + i : _OFFSETS + i + 1]

    def write(self, lr: float, step: int, offsets: list[int]) -> _Slot:
        """Send new numbers."""
        slot = next(self._slots)
        if slot.used is not None:
            slot.used.synchronize()
        slot.words.view(np.float64)[_LR] = lr
        slot.words[_STEP] = step
        slot.words.view(np.uint64)[_OFFSETS:] = offsets
        self._runtime.upload(slot.words, self._words)
        return slot


class _Slot:
    """Words on the host, until the step that uses them is done."""

    def __init__(self, words: NDArray[Any]) -> None:
        self.words = words
        self.used: Event | None = None
