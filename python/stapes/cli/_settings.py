"""The settings of a training run: as given, as resolved, as kept in the run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from stapes.cli._errors import Failure

_DEFAULTS = {
    "model": "cnn",
    "features": "logmel",
    "preset": "librosa",
    "seed": 0,
    "device": "auto",
    "precision": "fp32",
}

_MAY_DIFFER = ("data", "valid", "device")
"""On resuming: data may have moved, and what it holds is compared instead."""


@dataclass(frozen=True)
class Settings:
    """Options of ``stapes train``; None is what is not given, or computed from the data."""

    data: str | None = None
    valid: str | None = None
    model: str | None = None
    features: str | None = None
    preset: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    clip_seconds: float | None = None
    seed: int | None = None
    device: str | None = None
    precision: str | None = None

    def resumed(self, kept: Mapping[str, Any], where: Path) -> Self:
        """Return the settings of the run to go on with, and check that these are no others.

        Raises
        ------
        Failure
            If one is.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        other = [
            f"{_option(name)} was {kept.get(name)} and is {value}"
            for name, value in given.items()
            if name not in _MAY_DIFFER and kept.get(name) != value
        ]
        if other:
            raise Failure(
                f"{where}: cannot be resumed with other settings: {'; '.join(other)} "
                "(leave out the options: the run folder keeps them)"
            )
        known = {field.name for field in fields(self)}
        return replace(self, **{k: v for k, v in {**kept, **given}.items() if k in known})

    def with_defaults(self) -> Self:
        """Return the settings with everything that does not depend on the data."""
        missing = {k: v for k, v in _DEFAULTS.items() if getattr(self, k) is None}
        return replace(self, **missing)  # type: ignore[arg-type]

    def with_full_paths(self) -> Self:
        """Return the settings with places that mean the same in any folder."""
        places = {"data": self.data, "valid": self.valid}
        full = {k: os.path.abspath(v) for k, v in places.items() if v and Path(v).exists()}  # noqa: PTH100
        return replace(self, **full)  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """Return all of them, as JSON can hold them."""
        return asdict(self)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
