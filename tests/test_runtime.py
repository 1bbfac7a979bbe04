"""`CudaRuntime` on a double of CuPy: streams, and how long memory and programs live."""

import gc
import sys
import weakref
from contextlib import nullcontext

import numpy as np
import pytest

from fake_cupy import fake_cupy
from networks import images, seed_like
from stapes.train import CudaRuntime
from stapes.train.feeding import Feed
from stapes.train.plan import SHAPES_KEPT
from stapes.train.runtime import HostRuntime


@pytest.fixture
def cupy(monkeypatch):
    fake = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr("stapes.train.cuda.cuda_reason", lambda: None)
    return fake


@pytest.fixture
def no_collection():
    """What goes within the test goes by counts of references alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_memory_of_a_program_lives_as_long_as_its_arrays(cupy, no_collection):
    kept = []

    def first_run():
        kept.append(cupy.cuda.alloc(100))
        assert cupy.cuda.alloc(0).ptr == 0

    runtime = CudaRuntime()
    program = runtime.program(first_run)
    with runtime.scope():
        program()
    (pool,) = cupy.pools
    del program
    array = kept.pop()
    assert pool() is not None
    assert array.device_id == 0
    assert array.ptr > 0
    del array
    assert pool() is None


class Cycle:
    """Goes when garbage is collected, and tells whether a capture was under way then."""

    def __init__(self, cupy, told):
        self.itself, self.cupy, self.told = self, cupy, told

    def __del__(self):
        self.told.append(self.cupy.capturing)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fault", [True, False])
def test_no_garbage_is_collected_within_a_capture(cupy, no_collection, enabled, fault):
    told = []

    def function():
        if cupy.capturing:
            assert told == [False]
            assert not gc.isenabled()
            if fault:
                raise ZeroDivisionError

    runtime = CudaRuntime()
    program = runtime.program(function)
    with runtime.scope():
        program()
        Cycle(cupy, told)
        if enabled:
            gc.enable()
        with pytest.raises(ZeroDivisionError) if fault else nullcontext():
            program()
    assert gc.isenabled() is enabled
    assert not cupy.capturing


def test_a_stream_in_use_is_in_use_again_after_a_scope(cupy):
    runtime = CudaRuntime()
    mine = cupy.cuda.Stream().use()
    with runtime.scope():
        assert cupy.current is not mine
        with runtime.scope():
            pass
    assert cupy.current is mine
    with pytest.raises(ZeroDivisionError), runtime.scope():
        raise ZeroDivisionError
    assert cupy.current is mine
    assert len(mine.waits_for) == 2


class Noting(HostRuntime):
    """Notes what is asked of it, in order; ``programs`` are weak references to what was made."""

    def __init__(self):
        self.noted, self.programs = [], []

    def empty(self, shape, dtype):
        self.noted.append("empty")
        return super().empty(shape, dtype)

    def program(self, function):
        self.programs.append(weakref.ref(function))
        return function

    def mark(self):
        self.noted.append(event := Mark(self))
        return event

    def upload_beside(self, host, device, after):
        self.noted.append(("upload", after))
        return super().upload_beside(host, device, after)

    def all_of(self, what):
        return [n[1] for n in self.noted if isinstance(n, tuple) and n[0] == what]


class Mark:
    def __init__(self, runtime):
        self.runtime = runtime

    def synchronize(self):
        alive = [program() is not None for program in self.runtime.programs]
        self.runtime.noted.append(("wait", alive))


def test_the_first_upload_waits_for_the_work_that_had_its_memory():
    runtime = Noting()
    feed = Feed(runtime, np.empty(3))
    for value in range(5):
        feed(np.full(3, float(value)))
    (made, ready), (_, also_ready) = runtime.noted[:2], runtime.noted[2:4]
    assert made == "empty"
    uploads = runtime.all_of("upload")
    assert uploads[:2] == [ready, also_ready]
    assert all(isinstance(after, Mark) for after in uploads)


@pytest.mark.parametrize("change", ["shapes", "arguments"])
def test_programs_that_are_given_up_go_at_once_when_their_work_is_done(no_collection, change):
    runtime = Noting()
    model = seed_like()
    model.compile("sgd", device=runtime)
    kept = SHAPES_KEPT
    for samples in range(1, kept + 1):
        model.train_on_batch(*images(samples))
    assert all(program() is not None for program in runtime.programs)
    runtime.noted.clear()
    if change == "shapes":
        model.train_on_batch(*images(kept + 1))
    else:
        model.optimizer.weight_decay = 0.1
        model.train_on_batch(*images(1))
    gone = [program() is None for program in runtime.programs]
    assert gone == [change == "arguments" or i == 0 for i in range(kept)] + [False]
    assert all(runtime.all_of("wait")[0])
