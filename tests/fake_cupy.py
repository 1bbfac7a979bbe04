"""As much of CuPy as `CudaRuntime` asks for, on the host and computing nothing.

What it keeps are CuPy's rules: memory knows its pool weakly, a pool takes all its memory with it,
and leaving `with stream` brings back the stream of the `with` around it, not one in `use()`.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from types import SimpleNamespace


class Event:
    def __init__(self, disable_timing=False):
        pass

    def synchronize(self):
        pass


class Device:
    compute_capability = "90"

    def __init__(self, index=None):
        self.id = index or 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Pooled:
    """A block of a pool."""

    def __init__(self, pool, ptr):
        self.ptr, self.device_id, self.pool = ptr, 0, weakref.ref(pool)


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class MemoryPointer:
    def __init__(self, mem, offset):
        self.ptr, self.mem, self.device_id = mem.ptr + offset, mem, mem.device_id


class Graph:
    def launch(self, stream):
        pass


def fake_cupy():
    """Return a new one; ``pools`` are weak references to the pools that it made."""
    addresses = itertools.count(4096, 4096)
    fake = SimpleNamespace(pools=[], entered=[], capturing=False, allocator=None)

    class Stream:
        def __init__(self, non_blocking=False):
            self.waits_for = []

        def __enter__(self):
            fake.entered.append(self)
            return self.use()

        def __exit__(self, *error):
            fake.entered.pop()
            fake.current = fake.entered[-1] if fake.entered else fake.null

        def use(self):
            fake.current = self
            return self

        def record(self, event=None):
            return event or Event()

        def wait_event(self, event):
            self.waits_for.append(event)

        def begin_capture(self):
            fake.capturing = True

        def end_capture(self):
            fake.capturing = False
            return Graph()

    class MemoryPool:
        def __init__(self):
            fake.pools.append(weakref.ref(self))

        def malloc(self, size):
            return MemoryPointer(Pooled(self, next(addresses) if size else 0), 0)

    @contextlib.contextmanager
    def using_allocator(allocator):
        before, fake.allocator = fake.allocator, allocator
        yield
        fake.allocator = before

    fake.null = fake.current = Stream()
    fake.cuda = SimpleNamespace(
        Device=Device, Event=Event, Stream=Stream, MemoryPool=MemoryPool,
        MemoryPointer=MemoryPointer, UnownedMemory=UnownedMemory, using_allocator=using_allocator,
        get_current_stream=lambda: fake.current, alloc=lambda size: fake.allocator(size),
        runtime=SimpleNamespace(CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {})),
    )  # fmt: skip
    return fake
