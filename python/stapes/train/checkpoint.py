"""Checkpoints: everything a run needs to go on to the same final bits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stapes._tensor_file import ModelError, read_tensors, write_tensors
from stapes.device import is_cupy, to_device
from stapes.train.callbacks import Best, Callback, Logs, Mode

if TYPE_CHECKING:
    from stapes.train.loop import Run

KIND, VERSION = "stapes.checkpoint", 1
_ARRAY = "$array"


class Checkpoint(Callback):
    """Write a checkpoint after every epoch, from which ``fit(..., resume=path)`` goes on.

    It holds weights, optimizer, schedule, dropout's position, the position in the data, the sums
    of the running epoch, the history and the state of all callbacks. It is written atomically, and
    never from weights that are not finite, so the file is always a whole and good one. On Ctrl-C
    `fit` writes one more before it raises KeyboardInterrupt.

    Parameters
    ----------
    path : path
        The file, written anew each time.
    every_steps : int, optional
        Write one in the middle of epochs too, after each so many steps.
    best_only : bool
        Write only after epochs in which ``monitor`` was better than ever before.
    monitor, mode
        See `EarlyStopping`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every_steps: int | None = None,
        best_only: bool = False,
        monitor: str = "val_loss",
        mode: Mode = "auto",
    ) -> None:
        if every_steps is not None and (every_steps < 1 or best_only):
            raise ValueError(
                "Checkpoint: every_steps must be at least 1, and goes without best_only, got"
                f" {every_steps}"
            )
        self.path, self.every_steps, self.best_only = path, every_steps, bool(best_only)
        self._best = Best("Checkpoint", monitor, mode)

    def on_train_begin(self, model: Any, logs: Logs) -> None:
        self._best.value = None

    def on_batch_end(self, model: Any, logs: Logs) -> None:
        if self.every_steps is not None and logs["step"] % self.every_steps == 0:
            self.save(model)

    def on_epoch_end(self, model: Any, logs: Logs) -> None:
        if not self.best_only or self._best.improved(logs):
            self.save(model)

    def save(self, model: Any) -> None:
        """Write the checkpoint now; only within `fit`.

        Raises
        ------
        RuntimeError
            Outside of `fit`.
        DivergedError
            If weights are not finite; the file stays as it was.
        OSError
            If it cannot be written; the file stays as it was.
        """
        if model._run_of_fit is None:
            raise RuntimeError("Checkpoint.save: there is no training under way")
        save_checkpoint(self.path, model._run_of_fit)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best.value = state["best"]


def save_checkpoint(path: str | os.PathLike[str], run: Run) -> None:
    """Write a run's state."""
    run.check_weights()
    tensors: dict[str, NDArray[Any]] = {}
    state = {"identity": run.identity(), "state": pack(run.state_dict(), tensors)}
    write_tensors(path, tensors, state, kind=KIND, version=VERSION)


def restore_checkpoint(path: str | os.PathLike[str], run: Run) -> None:
    """Bring a run to the state in a checkpoint.

    Raises
    ------
    ModelError
        If the file is damaged, or belongs to another network, optimizer, seed, batch size or data:
        the error tells which.
    OSError
        If it cannot be read.
    """
    tensors, metadata = read_tensors(path, kind=KIND, version=VERSION)
    saved, now = metadata["identity"], run.identity()
    different = [
        f"{name} was {_short(saved.get(name))} and is {_short(now[name])}"
        for name in now
        if saved.get(name) != now[name]
    ]
    if different:
        raise ModelError(path, "cannot be resumed from here: " + "; ".join(different))
    run.load_state_dict(unpack(metadata["state"], tensors))


def pack(value: Any, tensors: dict[str, NDArray[Any]], name: str = "") -> Any:
    """Return a tree as JSON can hold it; its arrays go to ``tensors`` under their path."""
    if isinstance(value, Mapping):
        return {str(k): pack(v, tensors, f"{name}/{k}".lstrip("/")) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [pack(v, tensors, f"{name}/{i}".lstrip("/")) for i, v in enumerate(value)]
    if isinstance(value, np.ndarray) or is_cupy(value):
        tensors[name] = to_device(value, "cpu")
        return {_ARRAY: name}
    return value.item() if isinstance(value, np.generic) else value


def unpack(value: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """Return the tree that `pack` took apart (tuples come back as lists)."""
    if isinstance(value, dict):
        if _ARRAY in value:
            return tensors[value[_ARRAY]]
        return {key: unpack(entry, tensors) for key, entry in value.items()}
    return [unpack(entry, tensors) for entry in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
