"""Progress of a training run on stderr: one bar on a terminal, else a line for each epoch."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from stapes.cli._errors import say
from stapes.train import Callback
from stapes.train.callbacks import Logs

_SHOWN_EVERY = 0.1  # seconds


class TrainingBar(Callback):
    """Shows epoch, loss, accuracies and the time that is left.

    Attributes
    ----------
    step : int
        Steps done, those before a resumption included.
    seconds : float
        Since training began, or went on.
    """

    def __init__(self) -> None:
        self.step = 0
        self._epochs = self._steps = 0
        self._began = self._shown = time.monotonic()
        self._first: int | None = None
        self._valid = ""
        self._bar: Any = _bar() if sys.stderr.isatty() else None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since training began, or went on."""
        return time.monotonic() - self._began

    def on_train_begin(self, model: Any, logs: Logs) -> None:
        self._epochs, self._steps = logs["epochs"], logs["steps"]
        self._began = time.monotonic()
        if self._bar is not None:
            total = self._epochs * self._steps
            self._task = self._bar.add_task("training", total=total, numbers="")
            self._bar.start()

    def on_batch_end(self, model: Any, logs: Logs) -> None:
        self.step = logs["step"]
        if self._first is None:
            self._first = self.step - 1
        now = time.monotonic()
        if self._bar is not None and now - self._shown >= _SHOWN_EVERY:
            self._shown = now
            self._show(logs)

    def on_epoch_end(self, model: Any, logs: Logs) -> None:
        if "val_accuracy" in logs:
            self._valid = f", val {logs['val_loss']:.3f} acc {logs['val_accuracy']:.3f}"
        if self._bar is not None:
            self._show(logs)
            return
        done = logs["epoch"] + 1
        left = _clock(self._time_left(done * self._steps))
        say(f"epoch {done}/{self._epochs}  {_numbers(logs)}{self._valid}, {left} left")

    def _show(self, logs: Logs) -> None:
        epoch = f"epoch {logs['epoch'] + 1}/{self._epochs}"
        text = _numbers(logs) + self._valid
        self._bar.update(self._task, description=epoch, completed=self.step, numbers=text)

    def _time_left(self, step: int) -> float:
        done = step - (self._first or 0)
        return self.seconds / max(done, 1) * (self._epochs * self._steps - step)


def _numbers(logs: Logs) -> str:
    return f"loss {logs['loss']:.3f} acc {logs['accuracy']:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),  # all of it fits into 80 columns
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    )
