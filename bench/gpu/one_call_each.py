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

from calls import Call, calls
from devices import Copied, Cuda


def variants(dtype: Any) -> Iterator[Call]:
    """Yield the calls in a dtype; float32 convolutions also by each way to multiply on CUDA."""
    for call in calls(dtype):
        yield call
        if np.dtype(dtype) != np.float32 or call.op.endswith("bgrad"):
            continue
        if call.op.startswith(("conv2d", "conv_transpose2d", "linear")):
            for name in ("tf32", "fp32_split"):
                more = {**call.kwargs, "precision": name}
                yield replace(call, kwargs=more, note=f"{call.note} {name}".strip())


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
        for call in variants(dtype) if device == "cuda" else calls(dtype):
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
