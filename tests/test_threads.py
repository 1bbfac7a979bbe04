"""Results are the same bits for any number of threads."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import reference
import stapes
import stapes.ops
from calls import calls
from devices import same_bits

CALLS = {dtype: calls(dtype, big=True) for dtype in (np.float32, np.float64)}


def test_every_operator_is_here():
    assert {call.op for call in CALLS[np.float32]} == set(reference.OPERATORS)


@pytest.mark.parametrize("index", range(len(CALLS[np.float32])), ids=map(str, CALLS[np.float32]))
@pytest.mark.parametrize("dtype", CALLS, ids=lambda t: t.__name__)
def test_same_bits(dtype, index, threads):
    call = CALLS[dtype][index]
    threads(1)
    expected = call.results(stapes.ops)
    for count in (1, 2, 3):
        threads(count)
        for got, want in zip(call.results(stapes.ops), expected, strict=True):
            assert same_bits(got, want), f"{call} differs with {count} threads"


def test_count(threads):
    for count in (1, 2, 3, 1):
        threads(count)
        assert stapes.num_threads() == count


@pytest.mark.parametrize("count", [0, -1])
def test_no_threads_is_an_error(count):
    with pytest.raises(ValueError, match=str(count)):
        stapes.set_num_threads(count)


def test_called_from_several_threads_at_once(random):
    """The GIL is released: calls run beside each other and do not meet in shared scratch memory."""
    from concurrent.futures import ThreadPoolExecutor

    some = [c for c in CALLS[np.float32] if c.note in ("", "first", "training")]
    expected = [call.results(stapes.ops) for call in some]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            got = list(pool.map(lambda call: call.results(stapes.ops), some))
            for call, a, b in zip(some, got, expected, strict=True):
                for x, y in zip(a, b, strict=True):
                    assert same_bits(x, y), f"{call} differs when called beside others"


@pytest.mark.parametrize("count", [1025, 2**31 - 1])
def test_more_threads_than_can_be_started_are_an_error(count):
    with pytest.raises(ValueError, match=str(count)):
        stapes.set_num_threads(count)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_forked_process(threads):
    """OpenMP's threads are not there after a fork; an operator must not wait for them."""
    threads(2)
    x = np.linspace(-1, 1, 1 << 18, dtype=np.float32)
    want = stapes.ops.relu_fwd(x)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends the child if it hangs
        os._exit(0 if same_bits(stapes.ops.relu_fwd(x), want) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert stapes.num_threads() == 2
