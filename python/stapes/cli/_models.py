"""Reading the MODEL of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import stapes
from stapes.cli._errors import Failure

if TYPE_CHECKING:
    from stapes.nn import Sequential


def load_model(path: Path) -> Sequential:
    """Load a model that can read sound files; of a run folder, the one in it.

    Raises
    ------
    Failure
        If it was saved without features or class names.
    ModelError, OSError
        As `stapes.load`.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    model = stapes.load(file)
    if model.features is None or not model.classes:
        raise Failure(f"{file}: has no features or class names: it was not trained on sound files")
    return model
