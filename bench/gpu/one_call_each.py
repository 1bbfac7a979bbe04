"""Call every operator once or twice on small shapes, for compute-sanitizer to watch.

    python bench/gpu/one_call_each.py cuda|cpu

Prints a line before each call, so that a run that was cut off tells how far it came. Arrays lie in
allocations of their own, without CuPy's pool, so that an access outside of one is one outside of
all that is known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from calls import Call, calls  # type: ignore[import-not-found]
from devices import Copied, Cuda  # type: ignore[import-not-found]


def variants(dtype: Any) -> Iterator[Call]:
    """Yield the calls in a dtype; float32 convolutions also by each way to multiply on CUDA."""
    for call in [*calls(dtype), *others(dtype)]:
        yield call
        if np.dtype(dtype) != np.float32 or call.op.endswith("bgrad"):
            continue
        if call.op.startswith(("conv2d", "conv_transpose2d", "linear")):
            for name in ("tf32", "fp32_split"):
                more = {**call.kwargs, "precision": name}
                yield replace(call, kwargs=more, note=f"{call.note} {name}".strip())


def others(dtype: Any) -> Iterator[Call]:
    """Yield calls of the operators behind the step in 16 bits, which have no forms in common."""
    x = np.random.default_rng(0).standard_normal((3, 4099), np.float32)
    zero, one = np.zeros((), np.int32), np.ones((), np.float32)
    yield Call("cast", (x, dtype))
    yield Call("cast", (x.astype(dtype), np.float32), note="back")
    yield Call("find_inf", ([x.astype(dtype), x[0].astype(dtype)],))
    yield Call("update_scale", (one, zero, zero.copy()), {"step": np.ones((), np.int64)})
    if np.dtype(dtype).itemsize == 2:
        g, copy = x.astype(dtype), np.empty(x.shape, dtype)
        o = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "copies": [copy]}
        yield Call("adam_step", ([x], [g], [0 * x], [0 * x], 1), o, "copies")


def main(device: str) -> int:
    """Make the calls; the number of those that raised an error."""
    if device == "cuda":
        import cupy

        cupy.cuda.set_allocator(None)
        ops, dtypes = Cuda(), Cuda.dtypes
    else:
        ops, dtypes = Copied(), (np.float32,)
    failed = 0
    for dtype in dtypes:
        for call in variants(dtype):
            if device == "cpu" and "precision" in call.kwargs:
                continue  # CUDA's alone
            print(f"CALL {np.dtype(dtype).name} {call}", flush=True)
            try:
                call(ops)
            except Exception as e:  # one operator's error must not hide the others
                print(f"ERROR {type(e).__name__}: {e}", flush=True)
                failed += 1
    print(f"END {failed} failed", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1]), 100))
