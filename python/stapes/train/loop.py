"""The loop over epochs and batches behind `Sequential.fit`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes.train import metrics as _metrics
from stapes.train.batches import Source, labels_digest
from stapes.train.callbacks import Callback, History
from stapes.train.checkpoint import Checkpoint, restore_checkpoint
from stapes.train.errors import check_weights
from stapes.train.interrupt import Interrupts
from stapes.train.pending import LateLogs, Pending
from stapes.train.progress import Progress

if TYPE_CHECKING:
    from stapes.train.verbs import KerasVerbs


class Run:
    """One call of `fit`: its arguments, and its position, which a checkpoint keeps.

    Attributes
    ----------
    epoch, batch : int
        Epochs done, and batches done of the one that runs.
    step : int
        Batches done in all.
    """

    def __init__(
        self,
        model: KerasVerbs,
        source: Source,
        *,
        batch_size: int,
        epochs: int,
        validation: Source | None,
        callbacks: Sequence[Callback],
        seed: int,
        progress: bool,
    ) -> None:
        self.model, self.source, self.validation = model, source, validation
        self.batch_size, self.epochs, self.seed = batch_size, epochs, seed
        # Checkpoints come last: they keep the state in which the other callbacks left theirs.
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
        self.steps = -(-len(source) // batch_size)
        self.epoch = self.batch = self.step = 0
        self.loss = _metrics.Mean("loss", lambda output, target: 0.0)
        self.metrics = model._ready().new_metrics()
        self._late = model._ready().late
        self.history = History()
        self.progress = Progress(epochs, self.steps, show=progress)
        self._within_step = False
        self._pending: deque[Pending] = deque()
        self._numbers: dict[str, float] = {}  # the epoch's, up to the last step that is known

    def train(self, resume: str | os.PathLike[str] | None) -> History:
        """Run all epochs that are left."""
        self._reset()
        self._tell("on_train_begin", epochs=self.epochs, epoch=self.epoch, steps=self.steps)
        if resume is not None:
            restore_checkpoint(resume, self)
        try:
            with Interrupts() as interrupts, self.progress:
                while self.epoch < self.epochs and not self.model.stop_training:
                    self._train_epoch(interrupts.check)
                    interrupts.check()
        except KeyboardInterrupt:
            self._save_interrupted()
            raise
        last = {name: values[-1] for name, values in self.history.history.items()}
        self._tell("on_train_end", **last)
        return self.history

    def _train_epoch(self, check: Callable[[], None]) -> None:
        epoch = self.epoch
        self.progress.begin(epoch, self.batch)
        if self.batch == 0:
            self._tell("on_epoch_begin", epoch=epoch)
        seed = np.random.SeedSequence([self.seed, epoch])
        batches = self.source.batches(self.batch_size, shuffle=True, seed=seed, start=self.batch)
        for x, y in batches:
            check()
            pending = self._train_batch(x, y)
            self.progress.update(self.batch, self._numbers)
            place = {"epoch": epoch, "batch": self.batch - 1, "step": self.step}
            known = pending.logs
            late = LateLogs(place, pending, self.settle) if known is None else {**place, **known}
            for callback in self.callbacks:
                callback.on_batch_end(self.model, late)
        self.settle()
        logs = _metrics.results([self.loss, *self.metrics])
        if self.validation is not None:
            where = f"epoch {epoch + 1}, after step {self.step}"
            found = self.model._evaluate(self.validation, self.batch_size, check, where)
            logs |= {f"val_{name}": value for name, value in found.items()}
        self.check_weights()
        self.history.append(epoch, logs)
        self.progress.end(epoch, logs)
        self.epoch, self.batch = epoch + 1, 0
        self._reset()
        self._tell("on_epoch_end", epoch=epoch, **logs)

    def _train_batch(self, x: Any, y: Any) -> Pending:
        self._within_step = True
        pending = self.model._step(x, y, self.where())
        self._pending.append(pending)
        while len(self._pending) > self._late:
            self._settle_next()
        self.batch += 1
        self.step += 1
        self._within_step = False
        return pending

    def settle(self, until: Pending | None = None) -> None:
        """Wait for steps that are under way, all or up to one, and count their numbers.

        Raises
        ------
        DivergedError
            If a loss is NaN or infinite.
        """
        while self._pending and (until is None or until.logs is None):
            self._settle_next()

    def _settle_next(self) -> None:
        pending = self._pending.popleft()
        pending.wait()
        self.loss.add(pending.loss, pending.samples)
        self.model._measure(self.metrics, pending.output, pending.target)
        so_far = _metrics.results(self.metrics)
        pending.logs = {"loss": pending.loss, **so_far}
        self._numbers = {"loss": self.loss.result(), **so_far}

    def where(self) -> str:
        """Name the step that runs, counted from 1."""
        return f"epoch {self.epoch + 1}, step {self.step + 1} (batch {self.batch + 1})"

    def check_weights(self) -> None:
        """Raise DivergedError if a loss so far, or a weight, is not finite."""
        self.settle()
        check_weights(self.model, f"epoch {self.epoch + 1}, after step {self.step}")

    def _reset(self) -> None:
        self._numbers = {}
        for metric in (self.loss, *self.metrics):
            metric.reset()

    def _tell(self, turn: str, /, **logs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, turn)(self.model, logs)

    def _save_interrupted(self) -> None:
        """Keep what was trained, unless a step was cut in two: that belongs to no position."""
        for callback in self.callbacks:
            if isinstance(callback, Checkpoint) and not (callback.best_only or self._within_step):
                callback.save(self.model)

    # State.

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a checkpoint to be resumed, JSON-able."""
        compiled = self.model._ready()
        return {
            "network": self.model.config(),
            "optimizer": type(compiled.optimizer).__name__,
            "loss": compiled.targets,
            "precision": compiled.precision,
            "metrics": [metric.name for metric in self.metrics],
            "batch_size": self.batch_size,
            "seed": self.seed,
            "data": labels_digest(self.source),
            "callbacks": [type(callback).__name__ for callback in self.callbacks],
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        self.settle()
        step = self.model._ready().step
        return {
            "weights": self.model.state_dict(),
            "random": self.model.random_state(),
            "optimizer": self.model._ready().optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "stopped": self.model.stop_training,
            "sums": [metric.sums for metric in (self.loss, *self.metrics)],
            "history": {"epochs": self.history.epochs, "history": self.history.history},
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            **({} if step is None else step.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state_dict`."""
        self.model.load_state_dict(state["weights"])
        self.model.load_random_state(state["random"])
        self.model._ready().optimizer.load_state_dict(state["optimizer"])
        step = self.model._ready().step
        if step is not None:
            step.load_state_dict(state)
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.model.stop_training = state["stopped"]
        for metric, sums in zip((self.loss, *self.metrics), state["sums"], strict=True):
            metric.sums = sums
        self.history.epochs = state["history"]["epochs"]
        self.history.history = state["history"]["history"]
        for callback, kept in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(kept)
