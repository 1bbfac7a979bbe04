"""What happens beside the steps of training: stopping, logs, and callbacks of one's own."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stapes._files import atomic_write

Logs = Mapping[str, Any]
Mode = Literal["auto", "min", "max"]


class History:
    """What `Sequential.fit` returns: the numbers of every epoch.

    Attributes
    ----------
    history : dict of str to list of float
        One list for ``loss``, every metric, and ``val_`` before their names for validation data.
    epochs : list of int
        The epochs, counted from 0.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epochs: list[int] = []

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add an epoch's numbers."""
        self.epochs.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class Callback:
    """Called at the turns of `Sequential.fit`; subclass it and define what is needed.

    Every method gets the model and a mapping of numbers. ``model.stop_training = True`` ends
    training after the epoch. A callback that carries something from one epoch to the next returns
    it in `state_dict`, so that a resumed run goes on as if it had never been killed.
    """

    def on_train_begin(self, model: Any, logs: Logs) -> None:
        """Get ``epochs``, ``epoch`` (done so far: 0) and ``steps`` (an epoch's batches)."""

    def on_epoch_begin(self, model: Any, logs: Logs) -> None:
        """Get ``epoch``, counted from 0."""

    def on_batch_end(self, model: Any, logs: Logs) -> None:
        """Get ``epoch``, ``batch``, ``step`` (from the start, counted from 1), loss and metrics.

        ``loss`` is the batch's; metrics are those of the epoch so far. On CUDA the step may still
        be under way: they are waited for when they are asked for, the others are there.
        """

    def on_epoch_end(self, model: Any, logs: Logs) -> None:
        """Get ``epoch``, ``loss``, metrics, and those of the validation data."""

    def on_train_end(self, model: Any, logs: Logs) -> None:
        """Get the numbers of the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: numbers, strings, arrays, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state_dict`."""


def check_callbacks(callbacks: object) -> None:
    """Refuse what is no list of callbacks.

    Raises
    ------
    TypeError
        Naming what was got.
    """
    if not isinstance(callbacks, list | tuple):
        raise TypeError(f"fit: callbacks must be a list, got {callbacks!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: callbacks must be stapes.train.Callback, got {callback!r}")


class Best:
    """The best value so far of a number in the logs.

    Parameters
    ----------
    owner : str
        Who asks, for errors.
    monitor : str
        Key in the logs.
    mode : {"auto", "min", "max"}
        Which is better; "auto": larger for accuracies, else smaller.
    min_delta : float
        What an improvement is at least.
    """

    def __init__(self, owner: str, monitor: str, mode: Mode, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'{owner}: mode must be "auto", "min" or "max", got {mode!r}')
        if not min_delta >= 0:
            raise ValueError(f"{owner}: min_delta must be at least 0, got {min_delta!r}")
        larger = mode == "max" or (mode == "auto" and monitor.endswith("accuracy"))
        self.owner, self.monitor = owner, monitor
        self.sign, self.min_delta = (1.0 if larger else -1.0), float(min_delta)
        self.value: float | None = None

    def improved(self, logs: Logs) -> bool:
        """Take the value over, and tell whether it is the best so far; NaN never is.

        Raises
        ------
        ValueError
            If the logs do not have it.
        """
        if self.monitor not in logs:
            there = sorted(k for k, v in logs.items() if isinstance(v, float))
            raise ValueError(f"{self.owner}: there is no {self.monitor!r} in the logs: {there}")
        value = float(logs[self.monitor])
        if math.isnan(value):
            return False
        if self.value is None or self.sign * (value - self.value) > self.min_delta:
            self.value = value
            return True
        return False


class EarlyStopping(Callback):
    """Stop when a number has not improved for some epochs, and go back to the best weights.

    Parameters
    ----------
    monitor : str
        Key in the epoch's logs.
    patience : int
        Epochs without an improvement after which training stops.
    mode : {"auto", "min", "max"}
        Which is better; "auto": larger for accuracies, else smaller.
    min_delta : float
        What an improvement is at least.
    restore_best_weights : bool
        Give the model the weights of the best epoch at the end of training, whether it was stopped
        or ran to its last epoch.

    Attributes
    ----------
    best : float or None
    best_epoch, stopped_epoch : int or None
        ``stopped_epoch`` is None where training was not stopped by this.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        mode: Mode = "auto",
        *,
        min_delta: float = 0.0,
        restore_best_weights: bool = True,
    ) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        self.patience, self.restore_best_weights = int(patience), bool(restore_best_weights)
        self._best = Best("EarlyStopping", monitor, mode, min_delta)
        self._forget()

    def _forget(self) -> None:
        self._best.value = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._weights: dict[str, NDArray[Any]] = {}

    @property
    def best(self) -> float | None:
        return self._best.value

    def on_train_begin(self, model: Any, logs: Logs) -> None:
        self._forget()

    def on_epoch_end(self, model: Any, logs: Logs) -> None:
        epoch = logs["epoch"]
        if self._best.improved(logs) or self.best_epoch is None:
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._weights = model.state_dict()
        elif epoch - self.best_epoch >= self.patience:
            self.stopped_epoch = epoch
            model.stop_training = True

    def on_train_end(self, model: Any, logs: Logs) -> None:
        if self._weights:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self._best.value,
            "best_epoch": self.best_epoch,
            "stopped_epoch": self.stopped_epoch,
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best.value = state["best"]
        self.best_epoch, self.stopped_epoch = state["best_epoch"], state["stopped_epoch"]
        self._weights = dict(state["weights"])


class StopWhen(Callback):
    """Stop at the end of an epoch when the loss or the gradient is small enough.

    Parameters
    ----------
    loss_below : float, optional
        Stop when the epoch's mean training loss is below this.
    grad_norm_below : float, optional
        Stop when the Euclidean norm of all gradients of the epoch's last step is below this. With
        one batch an epoch this is gradient descent's usual criterion.

    Attributes
    ----------
    reason : str or None
        What stopped training.
    """

    def __init__(
        self, *, loss_below: float | None = None, grad_norm_below: float | None = None
    ) -> None:
        if loss_below is None and grad_norm_below is None:
            raise ValueError("StopWhen: give loss_below or grad_norm_below, or both")
        self.loss_below, self.grad_norm_below = loss_below, grad_norm_below
        self.reason: str | None = None
        self._last, self._norm = 0, math.inf

    def on_train_begin(self, model: Any, logs: Logs) -> None:
        self.reason = None
        self._last, self._norm = logs["steps"] - 1, math.inf

    def on_batch_end(self, model: Any, logs: Logs) -> None:
        if self.grad_norm_below is not None and logs["batch"] == self._last:
            self._norm = grad_norm(model)

    def on_epoch_end(self, model: Any, logs: Logs) -> None:
        if self.loss_below is not None and logs["loss"] < self.loss_below:
            self.reason = f"loss {logs['loss']:.6g} is below {self.loss_below:g}"
        elif self.grad_norm_below is not None and self._norm < self.grad_norm_below:
            self.reason = f"gradient norm {self._norm:.6g} is below {self.grad_norm_below:g}"
        if self.reason is not None:
            model.stop_training = True

    def state_dict(self) -> dict[str, Any]:
        return {"reason": self.reason, "norm": self._norm}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reason, self._norm = state["reason"], state["norm"]


class CSVLogger(Callback):
    """Write every epoch's numbers to a CSV file, one row an epoch.

    The file is written anew, atomically, after each epoch, from the whole history: a resumed run
    leaves the same file as one that was not killed.

    Parameters
    ----------
    path : path
        The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def on_epoch_end(self, model: Any, logs: Logs) -> None:
        history: History = model.history
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["epoch", *history.history])
        for row in zip(history.epochs, *history.history.values(), strict=True):
            writer.writerow(row)
        with atomic_write(self.path) as file:
            file.write(text.getvalue().encode())


def grad_norm(model: Any) -> float:
    """Return the Euclidean norm of all gradients together, computed in float64.

    Where the loss was scaled, its scale is taken out.
    """
    squares = [float(np.square(p.grad, dtype=np.float64).sum()) for p in model.parameters()]
    step = None if model._compiled is None else model._compiled.step
    scale = 1.0 if step is None or step.scale is None else float(step.scale.used[0])
    return math.sqrt(math.fsum(squares)) / scale
