"""Work in threads, with results in order and a progress bar."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import stapes

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = 1.0
"""Seconds before a progress bar appears."""


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield ``work(item)`` for each item, in order, from as many threads as `stapes.num_threads`.

    Only a few results wait at any time. An error, or leaving early, drops what has not begun.
    """
    threads = max(1, stapes.num_threads())
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="stapes-data")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def with_progress(
    items: Iterable[T], total: int, text: str, progress: bool | None = None
) -> Iterator[T]:
    """Yield the items; show a bar on stderr when they take more than a second.

    ``progress`` None means: where stderr is a terminal.
    """
    if not (sys.stderr.isatty() if progress is None else progress):
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    began = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(text, total=total)
    try:
        for item in items:
            bar.advance(task)
            if time.monotonic() - began > _PATIENCE and not bar.live.is_started:
                bar.start()
            yield item
    finally:
        bar.stop()
