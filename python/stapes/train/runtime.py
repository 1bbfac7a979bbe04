"""What a device must be able to do for the training step, and the host as such a device.

`stapes.train.device_step.DeviceStep` is written against `Runtime`: `CudaRuntime` does it with CuPy,
streams and graphs; `HostRuntime` with NumPy arrays, at once and without a graph, which shows the
same step to a debugger, and to tests on machines without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stapes.device import Array, empty

Program = Callable[[], None]
"""Work on a device that can be launched again and again."""


class Event(Protocol):
    """A point in a device's work."""

    def synchronize(self) -> None:
        """Wait until the work before it is done."""


class Runtime:
    """A device and its memory. Work is done in order, and later than the calls that ask for it.

    Attributes
    ----------
    device : str
        Where arrays lie, as `stapes.nn.Layer.to` names it.
    precisions : tuple of str
        What `Sequential.compile` may be asked for.
    late : int
        Steps whose numbers may still be on their way while the next one is prepared.
    direct : bool
        `copy` takes arrays of the host too, and is done when it returns.
    """

    device: str
    precisions: tuple[str, ...]
    late: int
    direct = False

    def why_not(self, precision: str) -> str:
        """Return what to add to the error that a precision is not to be had."""
        return ""

    def scope(self) -> Any:
        """Return a context within which the device is the current one, and its work in order."""
        raise NotImplementedError

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a new array on the device."""
        raise NotImplementedError

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a new array on the host from and to which `upload` and `download` are fast."""
        raise NotImplementedError

    def put(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        """Return ``x``, from anywhere, as a contiguous array on the device."""
        raise NotImplementedError

    def get(self, x: Array) -> NDArray[Any]:
        """Return a new array on the host; waits."""
        raise NotImplementedError

    def upload(self, host: NDArray[Any], device: Array) -> None:
        """Copy to the device, in order with other work; ``host`` must stay as it is until then."""
        raise NotImplementedError

    def upload_beside(self, host: NDArray[Any], device: Array, after: Event) -> Event:
        """As `upload`, but beside other work, once ``after`` has passed; returns when it is done.

        Other work waits for it from `follow` on.
        """
        raise NotImplementedError

    def follow(self, event: Event) -> None:
        """Let the work that is asked for from now on wait for an event."""
        raise NotImplementedError

    def download(self, device: Array, host: NDArray[Any]) -> None:
        """Copy to the host, in order with other work: it is there when a later `mark` passes."""
        raise NotImplementedError

    def copy(self, source: Array, target: Array) -> None:
        """Copy on the device, in order with other work; dtypes may differ."""
        raise NotImplementedError

    def mark(self) -> Event:
        """Return an event after all work so far."""
        raise NotImplementedError

    def program(self, function: Program) -> Program:
        """Return a function whose calls do the device's part of ``function``.

        The function itself may be called fewer times: what it does on the host is then not done
        again. It must always do the same work on the same arrays, and not wait for the device.
        """
        raise NotImplementedError


class _Passed:
    def synchronize(self) -> None:
        """Return at once."""


class HostRuntime(Runtime):
    """The host as a device: everything is done at once, by NumPy arrays.

    ``model.compile(device=HostRuntime())`` trains by the steps of the CUDA path, with every kernel
    called anew, so that each can be looked at. The bits are those of the CPU's own path.
    """

    device = "cpu"
    precisions: tuple[str, ...] = ("fp32", "fp64")
    late = 1

    @contextmanager
    def scope(self) -> Iterator[None]:
        yield

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return empty(np, shape, dtype)

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(shape, dtype)

    def put(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        return np.ascontiguousarray(x, dtype)

    def get(self, x: Array) -> NDArray[Any]:
        return np.array(x)

    def upload(self, host: NDArray[Any], device: Array) -> None:
        np.copyto(device, host)

    def upload_beside(self, host: NDArray[Any], device: Array, after: Event) -> Event:
        np.copyto(device, host)
        return _Passed()

    def follow(self, event: Event) -> None:
        event.synchronize()

    def download(self, device: Array, host: NDArray[Any]) -> None:
        np.copyto(host, device)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(target, source, casting="unsafe")

    def mark(self) -> Event:
        return _Passed()

    def program(self, function: Program) -> Program:
        return function
