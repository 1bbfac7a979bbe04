"""The progress of training on stderr: a bar on a terminal, else a line for each epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

_SHOWN_EVERY = 0.1  # seconds


class Progress:
    """Show epochs as they go by.

    Parameters
    ----------
    epochs : int
        In all.
    steps : int
        Batches of an epoch.
    show : bool
        False shows nothing.
    """

    def __init__(self, epochs: int, steps: int, *, show: bool) -> None:
        self.epochs, self.steps = epochs, steps
        self._lines = show and not sys.stderr.isatty()
        self._bar: Any = _bar() if show and not self._lines else None
        self._task: Any = None
        self._shown = self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, epoch: int, batch: int) -> None:
        """Start an epoch, at a batch that is not the first where a run is resumed."""
        self._began = time.monotonic()
        if self._bar is not None:
            title = f"epoch {epoch + 1}/{self.epochs}"
            self._task = self._bar.add_task(title, total=self.steps, completed=batch, numbers="")

    def update(self, batch: int, logs: Mapping[str, Any]) -> None:
        """Show the numbers after a batch, at most ten times a second."""
        now = time.monotonic()
        if self._bar is not None and now - self._shown >= _SHOWN_EVERY:
            self._shown = now
            self._bar.update(self._task, completed=batch, numbers=numbers(logs))

    def end(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Show an epoch's numbers."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.steps, numbers=numbers(logs))
        if self._lines:
            seconds = time.monotonic() - self._began
            text = f"epoch {epoch + 1}/{self.epochs}  {numbers(logs)}  {seconds:.1f} s"
            print(text, file=sys.stderr, flush=True)


def numbers(logs: Mapping[str, Any]) -> str:
    """Return the floats in the logs as text."""
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items() if type(value) is float)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    )
