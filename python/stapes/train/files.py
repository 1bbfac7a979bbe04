"""Classifying sound files with a model that carries its features."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stapes.train.verbs import KerasVerbs


def predict_files(
    model: KerasVerbs, paths: Iterable[str | os.PathLike[str]], *, windows: bool = False
) -> list[dict[str, Any]]:
    """Classify sound files.

    A file is resampled to the features' rate and cut into windows of the model's clip length, as
    in training; its probabilities are the mean of its windows'.

    Parameters
    ----------
    model : Sequential
        With ``features`` and ``classes``: trained on a data object, or loaded.
    paths : iterable of path
        The files.
    windows : bool
        Add ``"windows"``: a list of ``{start, end, class, probability, probabilities}``, times in
        seconds.

    Returns
    -------
    list of dict
        For each file ``{path, class, probability, probabilities, error}``; ``probabilities`` maps
        class names to numbers. Where a file cannot be read ``error`` says why and the others are
        None; else ``error`` is None.

    Raises
    ------
    ValueError
        If the model has no features or class names.
    """
    if model.features is None or not model.classes:
        raise ValueError(
            "predict_files: the model has no features or class names: train it on a data object,"
            " or set model.features and model.classes"
        )
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    return [_predict_file(model, os.fspath(path), windows) for path in paths]


def _predict_file(model: KerasVerbs, path: str, windows: bool) -> dict[str, Any]:
    try:
        starts, length, rows = _window_probabilities(model, path)
    except (ValueError, OSError) as error:
        entry: dict[str, Any] = dict.fromkeys(("class", "probability", "probabilities"))
        return {"path": path, **entry, "error": str(error)} | ({"windows": None} if windows else {})
    result = {"path": path, **_named(model, rows.mean(axis=0)), "error": None}
    if windows:
        result["windows"] = [
            {"start": float(start), "end": float(start + length), **_named(model, row)}
            for start, row in zip(starts, rows, strict=True)
        ]
    return result


def _window_probabilities(
    model: KerasVerbs, path: str
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Return where windows start and how long they are, in seconds, and their probabilities."""
    from stapes import audio, data

    rate = model.features.sample_rate
    samples, _ = audio.load(path, sample_rate=rate)
    if not len(samples):
        raise ValueError(f"{path}: the file has no samples")
    seconds = len(samples) / rate
    clip = len(samples) if model.clip_seconds is None else max(1, round(model.clip_seconds * rate))
    x = model.features(data.windows(samples, clip))[..., np.newaxis]
    rows = np.asarray(model.predict(x), dtype=np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: the model's output is not finite")
    return data.window_starts(len(samples), clip) / rate, min(clip / rate, seconds), rows


def _named(model: KerasVerbs, row: NDArray[np.float64]) -> dict[str, Any]:
    assert model.classes is not None
    best = int(row.argmax())
    probabilities = dict(zip(model.classes, map(float, row), strict=True))
    return {
        "class": model.classes[best],
        "probability": float(row[best]),
        "probabilities": probabilities,
    }
