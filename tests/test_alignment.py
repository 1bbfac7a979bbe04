"""Each array alone where no vector may start: kernels must ask for the address of every one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from calls import calls
from devices import same_bits

OPERATORS = {call.op for call in calls(np.float32)}
NAMES = [str(call) for call in calls(np.float32)]
LINE = 64  # bytes


def placed(x, elements):
    """A copy of ``x`` that starts ``elements`` after the start of a cache line."""
    raw = np.zeros(x.nbytes + 2 * LINE, np.uint8)
    start = -raw.ctypes.data % LINE + elements * x.itemsize
    copy = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def arrangements(arrays):
    """Copies of the arrays (or what else there is) with none, then each in turn off its line."""
    movable = [i for i, x in enumerate(arrays) if isinstance(x, np.ndarray) and x.size]
    for moved in [None, *movable]:
        yield moved, [placed(x, i == moved) if i in movable else x for i, x in enumerate(arrays)]


def flat(args):
    return [x for a in args for x in (a if isinstance(a, list) else [a])]


def like(args, arrays):
    """``args`` with these arrays in the places of `flat`."""
    arrays = iter(arrays)
    return [[next(arrays) for _ in a] if isinstance(a, list) else next(arrays) for a in args]


@pytest.fixture
def call(request, dtype):
    return next(c for c in calls(dtype) if str(c) == request.param)


@pytest.fixture
def kernels(ops):
    """The operators without the watch of the fixture ``ops``, which moves all arrays at once."""
    if ops.name not in ("cpu", "simt"):
        pytest.skip("the arrays are copied to where they are aligned")
    return SimpleNamespace(**{name: ops.function(name) for name in OPERATORS})


@pytest.mark.parametrize("call", NAMES, indirect=True)
def test_inputs(kernels, call):
    expected = call.results(kernels)
    args = call.arguments(kernels)
    for moved, arrays in arrangements(flat(args)):
        for got, want in zip(call.results(kernels, like(args, arrays)), expected, strict=True):
            assert same_bits(got, want), f"differs with array {moved} moved"


@pytest.mark.parametrize("call", [n for n in NAMES if "_step" not in n], indirect=True)
def test_outputs(kernels, call):
    expected = call.results(kernels)
    if "batch_norm2d" in call.op and call.updated:
        expected = expected[: -len(call.updated)]  # the running statistics are inputs
    for moved, out in arrangements(expected):
        if call.op == "cross_entropy_fwd":
            given = (out[0], None)
        elif call.gives_tuple:
            given = tuple(out)
        else:
            given = out[0]
        call(kernels, out=given)
        for got, want in zip(out, expected, strict=True):
            assert same_bits(got, want), f"differs with output {moved} moved"
