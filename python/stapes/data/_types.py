"""What the parts of stapes.data hand to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
Seed: TypeAlias = int | Sequence[int] | np.random.SeedSequence
Skipped: TypeAlias = list[dict[str, str]]


@dataclass(frozen=True)
class Clip:
    """A file, or a part of one, with its label and its group."""

    path: Path
    label: str
    group: str
    start: float = 0.0
    """Seconds."""
    end: float = math.inf
    """Seconds; beyond the end of the file means its end."""


def seed_sequence(seed: Seed, *key: int) -> np.random.SeedSequence:
    """Return the random stream ``key`` of a seed; the same one each time, in any order."""
    if isinstance(seed, np.random.SeedSequence):
        return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key))
    return np.random.SeedSequence(seed, spawn_key=key)
