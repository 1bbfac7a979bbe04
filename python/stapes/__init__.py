"""Stapes: audio CNNs at hardware speed, from a small install.

Submodules (`stapes.nn`, `stapes.ops`, ...) are imported when they are first used.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Threads of OpenMP that have nothing to do go on spinning, libgomp's for milliseconds: on a machine
# that others use too this takes the time from those that work (ten times slower was measured).
# libgomp reads its setting once, as it is loaded; the user's own choice wins.
_spin = "GOMP_SPINCOUNT"
_limit = _spin not in os.environ and "OMP_WAIT_POLICY" not in os.environ
if _limit:
    os.environ[_spin] = "10000"

from stapes._core import __version__, num_threads, set_num_threads  # noqa: E402

if _limit:
    del os.environ[_spin]

if TYPE_CHECKING:
    from stapes.model_file import ModelError, load

__all__ = ["ModelError", "__version__", "load", "num_threads", "set_num_threads"]

_MODULES = ("audio", "data", "losses", "models", "nn", "ops", "optim", "train")


def __getattr__(name: str) -> Any:
    if name in ("load", "ModelError"):
        return getattr(importlib.import_module("stapes.model_file"), name)
    if name in _MODULES:
        return importlib.import_module(f"stapes.{name}")
    raise AttributeError(f"module 'stapes' has no attribute {name!r}")
