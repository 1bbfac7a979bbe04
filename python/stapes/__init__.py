"""Stapes: audio CNNs at hardware speed, from a small install.

Submodules (`stapes.nn`, `stapes.ops`, ...) are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from stapes._core import __version__, num_threads, set_num_threads

if TYPE_CHECKING:
    from stapes.model_file import ModelError, load

__all__ = ["ModelError", "__version__", "load", "num_threads", "set_num_threads"]

_MODULES = ("audio", "data", "losses", "nn", "ops", "optim", "train")


def __getattr__(name: str) -> Any:
    if name in ("load", "ModelError"):
        return getattr(importlib.import_module("stapes.model_file"), name)
    if name in _MODULES:
        return importlib.import_module(f"stapes.{name}")
    raise AttributeError(f"module 'stapes' has no attribute {name!r}")
