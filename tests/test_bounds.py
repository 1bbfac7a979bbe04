"""No operator touches a byte beside its arrays: each lies against a page that may not be read.

Vector code is apt to read a few bytes too many at the end of a row, which shows only when the next
page is missing; here it always is. A violation kills the process, so it all runs in one of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses mprotect")


def guarded(x, at_end):
    """A copy of ``x`` that ends where a forbidden page begins, or begins where one ends."""
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    pages = max(1, -(-x.nbytes // page))
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for forbidden in (start, start + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(page), 0) == 0
    offset = (pages + 1) * page - x.nbytes if at_end else page
    y = np.frombuffer(memory, x.dtype, x.size, offset).reshape(x.shape)
    y[...] = x
    return y


def shape_calls(dtype):
    """The named shapes, which have the tails."""
    import reference
    from calls import Call
    from numerics import Random
    from shapes import CONV_CASES, FUSED_CASES

    draw = Random(0)
    for case in CONV_CASES:
        x, w, b = (
            draw.normal(case.x, dtype),
            draw.normal(case.w, dtype),
            draw.normal(case.w[0], dtype),
        )
        dy = draw.normal(reference.conv2d_fwd(x, w, **case.options).shape, dtype)
        yield Call("conv2d_fwd", (x, w, b), case.options, case.name)
        yield Call("conv2d_dgrad", (dy, w, x.shape), case.options, case.name)
        yield Call("conv2d_wgrad", (dy, x, w.shape), case.options, case.name)
    for case in FUSED_CASES:
        x, w, b = (
            draw.normal(case.x, dtype),
            draw.normal(case.w, dtype),
            draw.normal(case.w[0], dtype),
        )
        y, argmax = reference.conv2d_relu_max_pool2d_fwd(x, w, b, **case.fused_options)
        dy = draw.normal(y.shape, dtype)
        o = case.fused_options
        yield Call("conv2d_relu_max_pool2d_fwd", (x, w, b), o, case.name)
        yield Call("conv2d_relu_max_pool2d_bwd", (dy, argmax, x, w), o, case.name)


def run_guarded():
    import stapes.ops
    from calls import calls

    def guard(a, at_end):
        if isinstance(a, list):
            return [guard(x, at_end) for x in a]
        return guarded(a, at_end) if isinstance(a, np.ndarray) and a.size else a

    for dtype in (np.float32, np.float64):
        for call in [*calls(dtype), *shape_calls(dtype)]:
            print(call, np.dtype(dtype), flush=True)
            for at_end in (True, False):
                args = [guard(a, at_end) for a in call.arguments(stapes.ops)]
                result = call(stapes.ops, args)
                if result is None or call.op == "cross_entropy_fwd":
                    continue
                several = isinstance(result, tuple)
                out = [guard(y, at_end) for y in (result if several else (result,))]
                call(stapes.ops, args, out=tuple(out) if several else out[0])
    print("done", flush=True)


@pytest.mark.parametrize("isa", ["", "x86-64-v2"])
def test_nothing_beside_the_arrays_is_touched(isa):
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    env = {**os.environ, "STAPES_ISA": isa, "PYTHONPATH": os.pathsep.join(paths)}
    code = "import test_bounds; test_bounds.run_guarded()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300
    )
    told = done.stdout.strip().splitlines()
    assert done.returncode == 0, f"status {done.returncode} in {told[-1:]}: {done.stderr}"
    assert told[-1] == "done"
