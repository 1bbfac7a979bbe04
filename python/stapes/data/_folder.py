"""A folder with one folder of sound files for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stapes.audio import Features
from stapes.data._dataset import AudioData
from stapes.data._types import Clip, Skipped

AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".avr", ".htk", ".nist", ".sph"),
    *(".sf", ".ircam", ".paf", ".pvf", ".sds", ".sd2", ".wve", ".xi", ".iff", ".8svx", ".svx"),
    ".mpc",
)
"""Endings of what libsndfile reads by itself (not of headerless sound, nor of .mat)."""

_COMPANION_SUFFIXES = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".toml", ".ini", ".log"),
    *(".md", ".rst", ".pdf", ".html", ".htm", ".nfo", ".jpg", ".jpeg", ".png", ".gif", ".lab"),
    *(".textgrid", ".trn", ".cue", ".m3u", ".m3u8", ".pls", ".npy", ".npz", ".py", ".sh", ".asd"),
    *(".pkf", ".reapeaks", ".md5", ".sha1", ".sha256"),
)
_COMPANION_NAMES = ("license", "licence", "readme", "copying", "thumbs", "desktop")
"""What usually lies beside sound files and is none: passed over without a word."""


class AudioFolder(AudioData):
    """Sound files in one folder for each class, ``root/CLASS/**/FILE``.

    Files count when their name ends as sound files' do (WAV, FLAC, OGG, MP3, AIFF, ...); those that
    cannot be read are listed in ``skipped``, and so are files of unknown kinds. Hidden files and
    what usually lies beside sound (texts, tables, pictures, licences) are passed over. Links are
    followed. Each file is a group of its own.

    Parameters
    ----------
    root : path
        Folder of class folders.
    features : Features
        `audio.LogMel`, `audio.MFCC`, ...; a `audio.Normalized` is applied as batches are read.
        Files of another sample rate are resampled.
    clip_seconds : float, optional
        Length of a sample. Longer files give several (`windows`), shorter ones are padded with
        zeros. Default: the 95th percentile of the files' lengths, at most 10.
    classes : sequence of str, optional
        Names and order of the classes. Default: the names of the folders, sorted. A folder that is
        not among them is an error, so that no data is left out unseen.
    cache_dir : path, optional
        Where features are kept; see `stapes.data` for the default.
    progress : bool, optional
        Whether to show progress on stderr when it takes long. Default: if that is a terminal.
    missing_ok : bool
        Whether classes in ``classes`` may have no sample (to evaluate on some of the classes).

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If ``root`` is missing, no folder, or cannot be listed.
    ValueError
        If there are no class folders, one of them is not in ``classes``, or a class has no readable
        file; the message gives the reasons.
    OSError
        If the cache cannot be written.

    Examples
    --------
    >>> data = AudioFolder("sounds", features=stapes.audio.LogMel())  # doctest: +SKIP
    >>> train, valid = data.split(0.15, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        features: Features,
        clip_seconds: float | None = None,
        classes: Sequence[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        missing_ok: bool = False,
    ) -> None:
        folder = Path(root)
        names = _class_names(folder)
        if classes is not None:
            names = _check_classes(folder, names, classes, missing_ok)
        clips: list[Clip] = []
        skipped: Skipped = []
        for name in names:
            if (folder / name).is_dir():
                for path in _sound_files(folder / name, skipped):
                    clips.append(Clip(path, name, path.relative_to(folder).as_posix()))
        super().__init__(
            clips,
            names,
            features=features,
            clip_seconds=clip_seconds,
            cache_dir=cache_dir,
            progress=progress,
            skipped=skipped,
            missing_ok=missing_ok,
        )
        self.root = folder


def _class_names(root: Path) -> list[str]:
    entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name != "__MACOSX")
    if not names:
        sounds = sum(Path(entry.name).suffix.lower() in AUDIO_SUFFIXES for entry in entries)
        hint = f" ({sounds} sound files lie directly in it)" if sounds else ""
        raise ValueError(f"{root}: no class folders: put the files of each class in one{hint}")
    return names


def _check_classes(
    root: Path, found: list[str], classes: Sequence[str], missing_ok: bool
) -> list[str]:
    names = check_names(classes)
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(f"{root}: folders that are not among the classes {names}: {unknown}")
    missing = [name for name in names if name not in found]
    if missing and not missing_ok:
        raise ValueError(f"{root}: no folder for the classes {missing}; found {found}")
    return names


def check_names(classes: Sequence[str]) -> list[str]:
    """Return the names of the classes; raise if there are none or one is there twice."""
    names = [classes] if isinstance(classes, str) else list(classes)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"classes must be different names, at least one; got {names}")
    return names


def _sound_files(folder: Path, skipped: Skipped) -> list[Path]:
    """List what looks like sound in a folder and those inside, sorted; the rest is told apart."""
    sounds: list[Path] = []
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = list(os.scandir(here))
        except OSError as error:
            skipped.append({"path": str(here), "reason": f"cannot be listed: {error.strerror}"})
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            path = here / entry.name
            if entry.is_dir():
                pending.append(path)
            elif path.suffix.lower() in AUDIO_SUFFIXES:
                sounds.append(path)
            elif not _is_companion(path):
                skipped.append({"path": str(path), "reason": "not a known kind of sound file"})
    return sorted(sounds)


def _is_companion(path: Path) -> bool:
    return path.suffix.lower() in _COMPANION_SUFFIXES or path.stem.lower() in _COMPANION_NAMES
