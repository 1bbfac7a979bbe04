"""What is told about a model beside its loss: accuracies, errors, the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""Class id of a sample that does not count."""


def class_ids(target: NDArray[Any]) -> NDArray[np.int64]:
    """Return class ids (N,): ``target`` itself, or the largest place of (N, classes)."""
    ids = target.argmax(axis=-1) if target.ndim > 1 else target
    return ids.astype(np.int64, copy=False)


def confusion_matrix(output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.int64]:
    """Count samples by true class (row) and predicted class (column).

    Parameters
    ----------
    output : array
        Scores or probabilities (N, classes); the largest is the prediction, the first of equals.
    target : array
        Class ids (N,), -100 for a sample that does not count, or probabilities (N, classes).

    Returns
    -------
    array
        int64 (classes, classes).

    Raises
    ------
    ValueError
        If the shapes do not fit or an id is out of range.
    """
    if output.ndim != 2 or len(output) != len(target):
        raise ValueError(
            f"confusion_matrix: output must be (N, classes) for N targets, got {output.shape}"
            f" for {target.shape}"
        )
    classes = output.shape[1]
    ids = class_ids(target)
    counted = ids != IGNORED
    ids, predicted = ids[counted], output.argmax(axis=1)[counted]
    if ids.size and not 0 <= ids.min() <= ids.max() < classes:
        raise ValueError(
            f"confusion_matrix: ids must be 0 to {classes - 1}, got {ids.min()} to {ids.max()}"
        )
    counts = np.bincount(ids * classes + predicted, minlength=classes * classes)
    return counts.astype(np.int64).reshape(classes, classes)


class Metric:
    """A number over the samples seen since `reset`; sums in float64, kept in checkpoints.

    Attributes
    ----------
    name : str
        Its key in logs and history.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.sums: NDArray[np.float64] = np.zeros(2)

    def update(self, output: NDArray[Any], target: NDArray[Any]) -> None:
        """Add a batch."""
        raise NotImplementedError

    def result(self) -> float:
        """Return the number; NaN where no sample counted."""
        return float(self.sums[0] / self.sums[1]) if self.sums[1] else float("nan")


class Mean(Metric):
    """Mean of a number that is itself the mean of a batch, weighted by samples.

    Parameters
    ----------
    name : str
    function : callable
        ``function(output, target)``, the number of a batch.
    """

    def __init__(self, name: str, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name)
        self.function = function

    def update(self, output: NDArray[Any], target: NDArray[Any]) -> None:
        if len(output):
            self.add(float(self.function(output, target)), len(output))

    def add(self, value: float, samples: int) -> None:
        """Add a batch's number."""
        self.sums += (value * samples, samples)


class Accuracy(Metric):
    """Share of samples whose largest output is their class."""

    def __init__(self) -> None:
        super().__init__("accuracy")

    def update(self, output: NDArray[Any], target: NDArray[Any]) -> None:
        _expect_classes(self.name, output)
        ids = class_ids(target)
        counted = ids != IGNORED
        self.sums += ((output.argmax(axis=1) == ids)[counted].sum(), counted.sum())


class BalancedAccuracy(Metric):
    """Mean over the classes present of the share of their samples that are found."""

    def __init__(self) -> None:
        super().__init__("balanced_accuracy")

    def reset(self) -> None:
        self.sums = np.zeros((0, 2))

    def update(self, output: NDArray[Any], target: NDArray[Any]) -> None:
        _expect_classes(self.name, output)
        confusion = confusion_matrix(output, target)
        if len(self.sums) != len(confusion):
            self.sums = np.zeros((len(confusion), 2))
        self.sums += np.stack([np.diagonal(confusion), confusion.sum(axis=1)], axis=1)

    def result(self) -> float:
        present = self.sums[self.sums[:, 1] > 0] if len(self.sums) else self.sums
        return float(np.mean(present[:, 0] / present[:, 1])) if len(present) else float("nan")


def mse(output: NDArray[Any], target: NDArray[Any]) -> float:
    """Mean squared error over all elements; class ids are read as one-hot."""
    return float(np.mean(np.square(_error(output, target))))


def mae(output: NDArray[Any], target: NDArray[Any]) -> float:
    """Mean absolute error over all elements; class ids are read as one-hot."""
    return float(np.mean(np.abs(_error(output, target))))


def create(metrics: Iterable[str | Callable[[Any, Any], Any]]) -> list[Metric]:
    """Make metrics from what `Sequential.compile` was given.

    Raises
    ------
    ValueError
        For a name that is not known, or is there twice.
    TypeError
        For what is neither a name nor callable.
    """
    made = [_create(metric) for metric in metrics]
    names = [metric.name for metric in made]
    for name in names:
        if names.count(name) > 1 or name == "loss":
            raise ValueError(f"compile: metrics must have different names, got {names}")
    return made


def results(metrics: Iterable[Metric], prefix: str = "") -> dict[str, float]:
    """Return the numbers by name."""
    return {prefix + metric.name: metric.result() for metric in metrics}


_NAMED: Mapping[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "mse": lambda: Mean("mse", mse),
    "mae": lambda: Mean("mae", mae),
}


def _create(metric: str | Callable[[Any, Any], Any]) -> Metric:
    if isinstance(metric, str):
        if metric not in _NAMED:
            raise ValueError(
                f"compile: metrics must be among {', '.join(_NAMED)} or callables, got {metric!r}"
            )
        return _NAMED[metric]()
    if not callable(metric):
        raise TypeError(f"compile: a metric must be a name or callable, got {metric!r}")
    return Mean(getattr(metric, "__name__", type(metric).__name__), metric)


def _expect_classes(name: str, output: NDArray[Any]) -> None:
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(
            f"{name}: the output must be (N, classes) with at least 2 classes, got {output.shape}"
        )


def _error(output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    wanted = target.astype(np.float64)
    if target.ndim == 1 and output.ndim == 2 and target.dtype.kind == "i":
        wanted = (target[:, None] == np.arange(output.shape[1])).astype(np.float64)
    if wanted.shape != output.shape:
        raise ValueError(f"mse, mae: target must have shape {output.shape}, got {target.shape}")
    return output.astype(np.float64) - wanted
