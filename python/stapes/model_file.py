"""A trained network in one file: `Sequential.save` and `stapes.load`.

The file is safetensors: weights and running values under their names; its metadata holds, as JSON,
the architecture, the input's shape, the feature pipeline, the class names, the clip length, the
format's version, and a SHA-256 digest over every byte of the file. Nothing in it is code.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes._tensor_file import ModelError, read_tensors, write_tensors
from stapes.device import to_device

if TYPE_CHECKING:
    from stapes.nn import Sequential
    from stapes.train.verbs import KerasVerbs

__all__ = ["ModelError", "load", "save"]

KIND, VERSION = "stapes.model", 1


def save(model: KerasVerbs, path: str | os.PathLike[str]) -> None:
    """Write a model, atomically; see `Sequential.save`."""
    features = model.features
    metadata = {
        "architecture": model.config(),
        "input_shape": model.input_shape,
        "dtype": model.dtype.name,
        "probabilities": model._probabilities,
        "features": None if features is None else features.config(),
        "classes": None if model.classes is None else list(model.classes),
        "clip_seconds": model.clip_seconds,
    }
    tensors = {name: to_device(value, "cpu") for name, value in model.state_dict().items()}
    write_tensors(path, tensors, metadata, kind=KIND, version=VERSION)


def load(path: str | os.PathLike[str]) -> Sequential:
    """Read a model that `Sequential.save` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Sequential
        In inference mode, with ``classes``, ``features`` and ``clip_seconds`` (None where the model
        was saved without). It predicts as it is; `compile` it to evaluate or to train on.

    Raises
    ------
    ModelError
        If the file is no model, is of another version, is cut short, or has any byte changed. It is
        a ValueError that names the file and the reason.
    OSError
        If the file cannot be opened.
    """
    tensors, metadata = read_tensors(path, kind=KIND, version=VERSION)
    try:
        return _build(tensors, metadata)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(path, f"describes a model that cannot be built: {error}") from error


def _build(tensors: dict[str, Any], metadata: dict[str, Any]) -> Sequential:
    from stapes import audio, nn

    model = nn.from_config(metadata["architecture"])
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"a Sequential is needed, got a {type(model).__name__}")
    model.astype(np.dtype(metadata["dtype"]))
    if metadata["input_shape"] is not None:
        model.build(tuple(metadata["input_shape"]))
    model.load_state_dict(tensors)
    model._probabilities = metadata["probabilities"]
    features = metadata["features"]
    model.features = None if features is None else audio.from_config(features)
    model.classes, model.clip_seconds = metadata["classes"], metadata["clip_seconds"]
    return model.eval()
