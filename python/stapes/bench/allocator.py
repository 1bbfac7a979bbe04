"""The environment in which PyTorch is measured at its best, in processes that are made for it."""

from __future__ import annotations

import os
import sys

_ALLOCATOR = {  # glibc keeps freed memory for the next call, which else gets fresh pages each time
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(threads: int, *, allocator: bool) -> dict[str, str]:
    """Return the environment of a new process: threads of every library, and the allocator."""
    threaded = dict.fromkeys(_THREADS, str(threads))
    return {**os.environ, **threaded, **(_ALLOCATOR if allocator else {})}


def restart(threads: int) -> None:
    """Begin this program anew with that environment, unless it has it already."""
    wanted = environment(threads, allocator=True)
    if any(os.environ.get(name) != wanted[name] for name in (*_ALLOCATOR, *_THREADS)):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
