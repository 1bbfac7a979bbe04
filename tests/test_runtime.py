"""`CudaRuntime` on a double of CuPy: streams, and how long memory and programs live."""

import gc
import sys
from contextlib import nullcontext

import pytest

from fake_cupy import fake_cupy
from stapes.train import CudaRuntime


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
