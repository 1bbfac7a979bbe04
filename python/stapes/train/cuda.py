"""A GPU as `Runtime`: CuPy's arrays, streams, events and graphs. CuPy is imported on first use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stapes.device import Array, cuda_reason, is_cupy
from stapes.train.runtime import Event, Program, Runtime

_NEEDS_SM80 = ("tf32", "fp32_split", "bf16")
_FIRST_WITH_TF32_AND_BF16 = 80


class CudaRuntime(Runtime):
    """A GPU: work goes to a stream of its own, batches come by another one.

    The first launch of a program runs its function as it is, which also loads kernels and takes
    memory; the second captures it in a CUDA graph; from then on the graph is launched. Temporary
    memory of a program comes from a pool of its own that is kept as long as the graph, since the
    graph has the addresses, and as long as any array in it. Around a `scope`, CuPy's current stream
    and ours wait for each other.

    Parameters
    ----------
    device : str
        "cuda" (CuPy's current device) or "cuda:N".
    graph : bool
        False: programs run their function every time, for debugging and comparison.

    Raises
    ------
    ValueError
        If the device cannot be used; the error says what is missing.
    """

    late = 4

    def __init__(self, device: str = "cuda", *, graph: bool = True) -> None:
        kind, _, index = device.partition(":")
        if kind != "cuda" or (device != "cuda" and not index.isdecimal()):
            raise ValueError(f'compile: device must be "cuda" or "cuda:N", got {device!r}')
        reason = cuda_reason()
        if reason is not None:
            raise ValueError(f"compile: device {device!r} cannot be used: {reason}")
        try:
            import cupy
        except ImportError as error:
            raise ValueError(
                f"compile: device {device!r} cannot be used: CuPy cannot be imported: {error}"
            ) from error
        try:
            self._device = cupy.cuda.Device(int(index) if index else None)
            with self._device:
                self._stream = cupy.cuda.Stream(non_blocking=True)
                self._copies = cupy.cuda.Stream(non_blocking=True)
                self.arch = int(self._device.compute_capability)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise ValueError(f"compile: device {device!r} cannot be used: {error}") from error
        self._cupy = cupy
        self._graph = bool(graph)
        self.device = f"cuda:{self._device.id}"
        known = ("fp32", "fp32_split", "tf32", "bf16", "fp16")
        old = self.arch < _FIRST_WITH_TF32_AND_BF16
        self.precisions = tuple(p for p in known if not (old and p in _NEEDS_SM80))

    def why_not(self, precision: str) -> str:
        if precision not in _NEEDS_SM80:
            return ""
        major, minor = divmod(self.arch, 10)
        return f": it needs compute capability 8.0, and this is {major}.{minor}"

    @contextmanager
    def scope(self) -> Iterator[None]:
        with self._device:
            outer = self._cupy.cuda.get_current_stream()
            if outer == self._stream:
                yield
                return
            self._stream.wait_event(outer.record())
            try:
                with self._stream:
                    yield
            finally:
                # CuPy goes back to the stream of the `with` around this, not to one in `use()`.
                outer.use()
                outer.wait_event(self._stream.record())

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return self._cupy.empty(shape, dtype)

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        dtype, size = np.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        memory = self._cupy.cuda.alloc_pinned_memory(max(size * dtype.itemsize, 1))
        return np.frombuffer(memory, dtype, size).reshape(shape)

    def put(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        return self._cupy.ascontiguousarray(self._cupy.asarray(x, dtype))

    def get(self, x: Array) -> NDArray[Any]:
        return x.get() if is_cupy(x) else np.array(x)

    def upload(self, host: NDArray[Any], device: Array) -> None:
        self._move(device.data.ptr, host.ctypes.data, host.nbytes, self._stream)

    def upload_beside(self, host: NDArray[Any], device: Array, after: Event) -> Event:
        self._copies.wait_event(after)
        self._move(device.data.ptr, host.ctypes.data, host.nbytes, self._copies)
        event: Event = self._copies.record(self._event())
        return event

    def follow(self, event: Event) -> None:
        self._stream.wait_event(event)

    def download(self, device: Array, host: NDArray[Any]) -> None:
        self._move(host.ctypes.data, device.data.ptr, host.nbytes, self._stream)

    def copy(self, source: Array, target: Array) -> None:
        if source.dtype == target.dtype and source.flags.c_contiguous:
            self._move(target.data.ptr, source.data.ptr, target.nbytes, self._stream)
        else:
            target[...] = source

    def mark(self) -> Event:
        event: Event = self._stream.record(self._event())
        return event

    def program(self, function: Program) -> Program:
        if not self._graph:
            return function
        return _Captured(self._cupy, self._stream, function)

    def _event(self) -> Any:
        return self._cupy.cuda.Event(disable_timing=True)

    def _move(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(target, source, nbytes, runtime.memcpyDefault, stream.ptr)


class _Captured:
    """A program that becomes a CUDA graph at its second launch."""

    def __init__(self, cupy: Any, stream: Any, function: Program) -> None:
        self._cupy, self._stream, self._function = cupy, stream, function
        self._memory = _Memory(cupy.cuda)
        self._graph: Any = None
        self._ran = False

    def __call__(self) -> None:
        if self._graph is None and self._ran:
            self._graph = self._capture()
        if self._graph is not None:
            self._graph.launch(self._stream)
            return
        with self._cupy.cuda.using_allocator(self._memory.malloc):
            self._function()
        self._ran = True

    def _capture(self) -> Any:
        cuda = self._cupy.cuda
        with cuda.using_allocator(self._memory.malloc), _without_collection():
            self._stream.begin_capture()
            try:
                self._function()
            except BaseException as error:
                # The stream must leave capture; the error that this gives is that of `error`.
                with suppress(cuda.runtime.CUDARuntimeError):
                    self._stream.end_capture()
                if isinstance(error, cuda.runtime.CUDARuntimeError):
                    raise RuntimeError(
                        "the step cannot be captured in a CUDA graph: a layer or the loss waits for"
                        f" the device, or copies from the host ({error}); compile with"
                        " device=stapes.train.CudaRuntime(graph=False) runs it as it is"
                    ) from error
                raise
            return self._stream.end_capture()


class _Memory:
    """A pool of CuPy's that lives as long as any array in it.

    CuPy's memory knows its pool weakly, and a pool frees all it has when it goes, arrays in use
    included. The gradients and the optimizer's state that a program's first run makes outlive it.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._pool = cuda, cuda.MemoryPool()

    def malloc(self, size: int) -> Any:
        """Return new memory: an allocator of CuPy's."""
        taken = self._pool.malloc(size)
        if size == 0:
            return taken
        owner = self._pool, taken
        memory = self._cuda.UnownedMemory(taken.ptr, size, owner, taken.device_id)
        return self._cuda.MemoryPointer(memory, 0)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collect garbage now, and none within: destructors of old graphs and pools fail a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
