"""Batches out of arrays or data objects, checked before training starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from stapes.device import device_of, is_cupy, to_device
from stapes.train.metrics import IGNORED

Batch = tuple[Any, Any]


class Source(Protocol):
    """What `Sequential.fit` takes: the data objects of `stapes.data`, and `Arrays`."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, *, shuffle: bool, seed: Any, start: int = 0
    ) -> Iterator[Batch]:
        """Give (x, y); the same ones for the same seed, the first ``start`` left out."""


class Arrays:
    """Batches of arrays.

    Parameters
    ----------
    x : array
        (N, ...).
    y : array, optional
        (N, ...); without it batches are (x, None).
    """

    def __init__(self, x: Any, y: Any = None) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def batches(
        self, batch_size: int, *, shuffle: bool, seed: Any, start: int = 0
    ) -> Iterator[Batch]:
        """Give (x, y); the order is one permutation drawn from the seed."""
        n = len(self)
        order = np.random.default_rng(seed).permutation(n) if shuffle else None
        x_order = None if order is None else to_device(order, device_of(self.x))
        for begin in range(start * batch_size, n, batch_size):
            rows = slice(begin, begin + batch_size)
            x = self.x[rows if x_order is None else x_order[rows]]
            y = None if self.y is None else self.y[rows if order is None else order[rows]]
            yield x, y


class Targets:
    """What a model's targets must look like, from its loss and its output.

    Values are checked on the host only: on a device that would have to be waited for, and there
    a wrong class id makes the loss NaN.

    Parameters
    ----------
    kind : str
        "cross_entropy", "categorical_crossentropy" (probabilities only),
        "sparse_categorical_crossentropy" (ids only), "mse", or "custom" (anything).
    output_shape : tuple of int
        A sample's, without N.
    dtype : dtype
        What values are converted to for "mse".
    ignored : int
        Class id that may be out of range.
    """

    def __init__(
        self,
        kind: str,
        output_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        ignored: int = IGNORED,
    ) -> None:
        self.kind, self.shape, self.dtype = kind, tuple(output_shape), dtype
        self.ignored = ignored

    def __call__(self, y: Any, samples: int) -> Any:
        """Return the targets as the loss takes them.

        Raises
        ------
        TypeError
            If the dtype is none of numbers, or class ids are not integers.
        ValueError
            If the shape does not fit, an id is out of range, or a value is NaN or infinite.
        """
        if y is None:
            raise ValueError("y is missing: arrays need targets")
        y = y if is_cupy(y) else np.asarray(y)
        if y.dtype.kind not in "fiub" and self.kind != "custom":
            raise TypeError(f"y must be numbers, got dtype {y.dtype}")
        if y.ndim < 1 or len(y) != samples:
            raise ValueError(f"y must have as many samples as x ({samples}), got shape {y.shape}")
        if self.kind == "custom":
            return y
        if self.kind == "mse":
            return self._values(y)
        return self._ids(y) if y.ndim == 1 else self._probabilities(y)

    def _values(self, y: Any) -> Any:
        if y.ndim == 1 and self.shape == (1,):
            y = y[:, None]
        if y.shape[1:] != self.shape:
            raise ValueError(f"y must have shape (N, {_inner(self.shape)}), got {y.shape}")
        return _finite(y.astype(self.dtype, copy=False))

    def _ids(self, y: Any) -> Any:
        (classes,) = self._classes()
        if self.kind == "categorical_crossentropy":
            raise ValueError(
                f"y must be one-hot (N, {classes}) for categorical_crossentropy, got class ids"
                f" {y.shape}; sparse_categorical_crossentropy and cross_entropy take ids"
            )
        if y.dtype.kind == "f":
            raise TypeError(f"y must be integers where it is class ids {y.shape}, got {y.dtype}")
        if not is_cupy(y):
            wrong = ((y < 0) | (y >= classes)) & (y != self.ignored)
            if wrong.any():
                at = int(wrong.argmax())
                raise ValueError(
                    f"y must be class ids from 0 to {classes - 1}, got {int(y[at])} at sample {at}"
                )
        return y if y.dtype in (np.int32, np.int64) else y.astype(np.int64)

    def _probabilities(self, y: Any) -> Any:
        (classes,) = self._classes()
        if y.shape[1:] != (classes,):
            raise ValueError(
                f"y must be class ids (N,) or probabilities (N, {classes}), got shape {y.shape}"
            )
        if self.kind == "sparse_categorical_crossentropy":
            raise ValueError(
                f"y must be class ids (N,) for sparse_categorical_crossentropy, got {y.shape};"
                " categorical_crossentropy and cross_entropy take one-hot"
            )
        return _finite(y.astype(self.dtype, copy=False))

    def _classes(self) -> tuple[int, ...]:
        if len(self.shape) != 1:
            raise ValueError(
                f"cross-entropy needs a model with outputs (N, classes), got (N,"
                f" {_inner(self.shape)}): put Flatten() or a global pool before the last Linear"
            )
        return self.shape


def as_source(x: Any, y: Any, what: str) -> Source:
    """Return a data object as it is, and arrays as `Arrays`.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is neither, has no samples, or comes with a ``y`` of its own.
    """
    if hasattr(x, "batches"):
        if y is not None:
            raise ValueError(f"{what}: y must be None where x is a data object with its own labels")
        source: Source = x
    else:
        source = Arrays(as_inputs(x, what), y)
    if len(source) == 0:
        raise ValueError(f"{what}: there are no samples")
    return source


def check_alike(what: str, data: Any, ours: Any) -> None:
    """Refuse data whose labels or inputs mean something else than what a model is trained on.

    Parameters
    ----------
    what : str
        For the error.
    data, ours : object
        Data, and the model or its training data: compared where both have ``classes`` or
        ``features``.

    Raises
    ------
    ValueError
        If they differ.
    """
    theirs, known = getattr(data, "classes", None), getattr(ours, "classes", None)
    if theirs and known and list(theirs) != list(known):
        raise ValueError(
            f"{what}: the data has the classes {list(theirs)}, those trained on are {list(known)}"
        )
    theirs, known = getattr(data, "features", None), getattr(ours, "features", None)
    if theirs is not None and known is not None and theirs != known:
        raise ValueError(
            f"{what}: the data has other features than those trained on: make both with the same"
            f" ones, normalised alike (data.normalized(mean, std)); got {_short(theirs)}, trained"
            f" on {_short(known)}"
        )


def unaugmented(data: Any) -> Any:
    """Return a data object without its random changes, which are for training only."""
    return data.plain() if hasattr(data, "plain") else data


def as_inputs(x: Any, what: str) -> Any:
    """Return x as an array of numbers with a batch axis and at least one more."""
    x = x if is_cupy(x) else np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{what}: x must be an array of numbers, got dtype {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"{what}: x must be (N, ...) with a sample's axes, got shape {x.shape}")
    return x


def labels_digest(source: Source) -> str:
    """Return SHA-256 over the number of samples and their labels, to know the data again."""
    labels = getattr(source, "labels", getattr(source, "y", None))
    digest = hashlib.sha256(str(len(source)).encode())
    if isinstance(labels, np.ndarray):
        digest.update(f"{labels.dtype}{labels.shape}".encode())
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _finite(y: Any) -> Any:
    if is_cupy(y):
        return y
    bad = ~np.isfinite(y.reshape(len(y), -1)).all(axis=1)
    if bad.any():
        raise ValueError(f"y must be finite, got NaN or infinity at sample {int(bad.argmax())}")
    return y


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _inner(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
