"""From the DATA of the command line to a data object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stapes.audio import MFCC, Features, LogMel
from stapes.cli._errors import Failure
from stapes.data import AudioData, AudioFolder, Manifest
from stapes.data._folder import AUDIO_SUFFIXES
from stapes.data._manifest import manifest_values

_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "val", "validation"),
    "test": ("test",),
}
"""Parts of a set, and what their folders (or their values in a manifest's split) are called."""


@dataclass(frozen=True)
class Place:
    """A folder of class folders, or the rows of a manifest that are meant."""

    path: Path
    filter: Mapping[str, str] = field(default_factory=dict)

    def open(
        self,
        features: Features,
        *,
        clip_seconds: float | None = None,
        classes: Sequence[str] | None = None,
        missing_ok: bool = False,
    ) -> AudioData:
        """Read, decode, compute features: the data object."""
        if self.path.is_dir():
            return AudioFolder(
                self.path,
                features=features,
                clip_seconds=clip_seconds,
                classes=classes,
                missing_ok=missing_ok,
            )
        return Manifest(
            self.path,
            features=features,
            clip_seconds=clip_seconds,
            filter=self.filter,
            classes=classes,
            missing_ok=missing_ok,
        )


def find(path: Path, part: str) -> Place | None:
    """Return where a part of DATA is; DATA itself where it has no parts.

    Parameters
    ----------
    path : path
        A folder of class folders, a folder that holds ``train`` (and ``valid``, ``test``), or a
        manifest, whose column ``split`` may tell the same.
    part : {"train", "valid", "test"}

    Returns
    -------
    Place or None
        None where DATA has parts, but not this one.

    Raises
    ------
    Failure
        If there is no such file, or it is none of these.
    """
    if not path.exists():
        raise Failure(f"{path}: no such file or folder")
    if path.is_dir():
        if not _holds_folders(path / "train"):
            return Place(path)
        found = [path / name for name in _NAMES[part] if (path / name).is_dir()]
        return Place(found[0]) if found else None
    if path.suffix.lower() in AUDIO_SUFFIXES:
        raise Failure(f"{path}: is a sound file; DATA is a folder of class folders or a manifest")
    splits = manifest_values(path, "split")
    if "train" not in splits:
        return Place(path)
    values = [name for name in _NAMES[part] if name in splits]
    return Place(path, {"split": values[0]}) if values else None


def needed(path: Path, part: str) -> Place:
    """As `find`, but where DATA has parts it must have this one."""
    place = find(path, part)
    if place is None:
        raise Failure(f"{path}: holds train, but no {part}: name the folder to read itself")
    return place


def set_name(path: Path) -> str:
    """Return a name for a set, from where it is."""
    full = Path(os.path.abspath(path))  # noqa: PTH100 - links keep the name the user gave them
    return (full.parent.name if full.name == "train" else full.stem) or "run"


def make_features(name: str, preset: str) -> Features:
    """Return the features of ``--features`` and ``--preset``."""
    return MFCC(preset=preset) if name == "mfcc" else LogMel(preset=preset)


def _holds_folders(path: Path) -> bool:
    return path.is_dir() and any(
        entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(path)
    )
