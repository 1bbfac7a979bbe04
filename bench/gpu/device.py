"""The device of a benchmark: PyTorch and CuPy on one stream, clocks, a flush of the cache.

On the CPU all of it works likewise, so that the benchmarks can be rehearsed without a GPU.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

FLUSH_BYTES = 256 << 20  # several times any L2
SLEEP_CYCLES = 2_000_000  # about 1 ms, in which the host queues even a call of dozens of arrays
FIRST_CALLS = 3  # cuDNN tries its algorithms, kernels are loaded, memory is taken


class Device:
    """Where everything runs.

    Parameters
    ----------
    name : str
        "cuda" or "cpu".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.cuda = name == "cuda"
        self.xp: Any = np
        if self.cuda:
            import cupy

            self.xp = cupy
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._stream.use()
            stream = torch.cuda.ExternalStream(self._stream.ptr)  # type: ignore[no-untyped-call]
            torch.cuda.set_stream(stream)
            self._flushed = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
            torch.backends.cudnn.benchmark = True
        self.tf32(False)
        self._random = torch.Generator(device=name).manual_seed(0)

    def tf32(self, on: bool) -> None:
        """Let PyTorch multiply float32 numbers as TF32, or not."""
        torch.backends.cuda.matmul.allow_tf32 = on
        torch.backends.cudnn.allow_tf32 = on

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return normal random numbers."""
        made = torch.randn(*shape, generator=self._random, device=self.name)
        return made.to(dtype)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Return random int64 in [0, high)."""
        return torch.randint(high, shape, generator=self._random, device=self.name)

    def array(self, tensor: torch.Tensor) -> Any:
        """Return a contiguous tensor as a NumPy or CuPy array on the same memory."""
        tensor = tensor.detach()
        if tensor.dtype is torch.bfloat16:
            from ml_dtypes import bfloat16

            return self.array(tensor.view(torch.int16)).view(bfloat16)
        return self.xp.from_dlpack(tensor) if self.cuda else tensor.numpy()

    def tensor(self, array: Any) -> torch.Tensor:
        """Return an array as a tensor on the same memory."""
        if array.dtype.name == "bfloat16":
            return self.tensor(array.view(np.int16)).view(torch.bfloat16)
        return torch.utils.dlpack.from_dlpack(array) if self.cuda else torch.from_numpy(array)

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def release(self) -> None:
        """Give memory back that both libraries keep for later."""
        if self.cuda:
            gc.collect()  # so that graphs and arrays in cycles give theirs back too
            self.synchronize()
            torch.cuda.empty_cache()
            self.xp.get_default_memory_pool().free_all_blocks()

    def captured(self, f: Callable[[], Any]) -> Callable[[], Any]:
        """Return ``f`` captured in a CUDA graph; on the CPU ``f`` itself."""
        if not self.cuda:
            return f
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(FIRST_CALLS):
                f()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        gc.collect()  # now, and not within: the destructor of an old graph fails a capture
        gc.disable()
        try:
            with torch.cuda.graph(graph):
                result = f()
        finally:
            gc.enable()

        def replay() -> Any:
            graph.replay()
            return result

        replay.arrays = f  # type: ignore[attr-defined]  # the graph reads what f holds: kept alive

        return replay

    def interleave(
        self, functions: Mapping[str, Callable[[], Any]], *, seconds: float, least: int = 5,
        cold: bool = False,
    ) -> dict[str, float]:  # fmt: skip
        """Time functions on the device, in turn.

        Parameters
        ----------
        functions : mapping of str to callable
            Each queues work on the current stream.
        seconds : float
            Time to spend, in ``least`` rounds at least.
        cold : bool
            Flush the cache before each call; otherwise call it once untimed before.

        Returns
        -------
        dict of str to float
            Median seconds of each: between two events on the stream that were both queued while
            the GPU was busy with something else, so without what the host takes to launch.
        """
        for f in functions.values():
            for _ in range(FIRST_CALLS):
                f()
        self.synchronize()
        times: dict[str, list[float]] = {name: [] for name in functions}
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < least or time.perf_counter() < end:
            for name, f in functions.items():
                times[name].append(self._timed(f, cold))
            rounds += 1
        return {name: statistics.median(t) for name, t in times.items()}

    def _timed(self, f: Callable[[], Any], cold: bool) -> float:
        if not self.cuda:
            begin = time.perf_counter()
            f()
            return time.perf_counter() - begin
        if cold:
            self._flushed.zero_()
        else:
            f()
        torch.cuda._sleep(SLEEP_CYCLES)  # type: ignore[no-untyped-call]
        event: Any = torch.cuda.Event
        begin_event, end_event = (event(enable_timing=True) for _ in range(2))
        begin_event.record()
        f()
        end_event.record()
        end_event.synchronize()
        return float(begin_event.elapsed_time(end_event)) / 1e3

    def interleave_steps(
        self, functions: Mapping[str, Callable[[], Any]], *, seconds: float, least: int = 5
    ) -> dict[str, float]:
        """Time functions as a loop sees them: with the host's part, by the host's clock.

        Each turn calls one function often enough to take some milliseconds, between two waits for
        the whole device. Returns the median seconds of a call.
        """
        counts = {}
        for name, f in functions.items():
            for _ in range(FIRST_CALLS):
                f()
            counts[name] = max(1, min(200, int(0.01 / max(1e-6, self._loop(f, 2)))))
        times: dict[str, list[float]] = {name: [] for name in functions}
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < least or time.perf_counter() < end:
            for name, f in functions.items():
                times[name].append(self._loop(f, counts[name]))
            rounds += 1
        return {name: statistics.median(t) for name, t in times.items()}

    def _loop(self, f: Callable[[], Any], count: int) -> float:
        self.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            f()
        self.synchronize()
        return (time.perf_counter() - begin) / count


def compiled(f: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """Return ``f`` through torch.compile, for the very shapes it gets, as if it were the first.

    What was compiled before for other shapes would make this one dynamic; and functions that share
    their code count as one, which after eight times is left eager without a word.
    """
    torch.compiler.reset()
    return torch.compile(f, dynamic=False, **how)


def peaks(device: Device) -> dict[str, float]:
    """Measure the limits: bytes/s of a large copy, FLOP/s of large products by precision."""
    size = 2 << 30 if device.cuda else 1 << 20
    a = torch.empty(size, dtype=torch.uint8, device=device.name).random_(0, 255)
    b = torch.empty_like(a)
    found = {}
    found["copy"] = 2 * size / device.interleave({"copy": partial(b.copy_, a)}, seconds=0.1)["copy"]
    del a, b
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32,
             "fp32": torch.float32}  # fmt: skip
    for precision, dtype in kinds.items():
        n = 64 if not device.cuda else 4096 if precision == "fp32" else 8192
        x, y, z = (device.normal(n, n, dtype=dtype) for _ in range(3))
        device.tf32(precision == "tf32")
        once = {"product": partial(torch.matmul, x, y, out=z)}
        found[precision] = 2 * n**3 / device.interleave(once, seconds=0.1)["product"]
    device.tf32(False)
    device.release()
    return found
