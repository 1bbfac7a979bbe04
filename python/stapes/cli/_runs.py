"""Run folders: who may write into one, and what it holds."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stapes._files import atomic_write
from stapes.cli._errors import Failure
from stapes.cli._output import plain

_LOCK = ".lock"
_FILES = (
    *("metrics.json", "settings.json", "history.csv", "checkpoint.safetensors"),
    *("model.safetensors", "confusion.png", "curves.png"),
)


class RunFolder:
    """A folder with a model, and how it was trained; only within `run_folder`.

    Attributes
    ----------
    model, checkpoint, history, metrics, settings : path
        Its files. ``settings`` is written first and ``metrics`` last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self.history = path / "history.csv"
        self.metrics = path / "metrics.json"
        self.settings = path / "settings.json"

    @property
    def used(self) -> bool:
        """Whether a run is or was here."""
        return any((self.path / name).exists() for name in _FILES)

    @property
    def finished(self) -> bool:
        """Whether its run came to the end."""
        return self.metrics.exists()

    def clear(self) -> None:
        """Remove the files of the run that was here, its results first."""
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises
    ------
    Failure
        If it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise Failure(f"{path}: is damaged: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, atomically."""
    with atomic_write(path) as file:
        file.write(json.dumps(plain(value), indent=2).encode() + b"\n")


@contextmanager
def run_folder(out: Path | None, name: str) -> Iterator[RunFolder]:
    """Create a run folder, or enter one that is there, and keep others out of it.

    Parameters
    ----------
    out : path or None
        The folder. None: a new one, ``runs/NAME-1`` or the next number that is free.
    name : str
        For that.

    Raises
    ------
    Failure
        If another process is at work in it.
    OSError
        If it cannot be created.
    """
    path, created = (_next_free(name), True) if out is None else (out, not out.exists())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    try:
        yield RunFolder(path)
    finally:
        (path / _LOCK).unlink(missing_ok=True)
        lock.close()
        if created and not any(path.iterdir()):
            path.rmdir()


def _next_free(name: str) -> Path:
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    tails = (entry.name.removeprefix(f"{name}-") for entry in runs.glob("*-*"))
    count = max((int(tail) for tail in tails if tail.isdecimal()), default=0)
    while True:
        count += 1
        path = runs / f"{name}-{count}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def _lock(path: Path) -> BinaryIO:
    """Lock a folder; the system lets go of it when the process ends, however that may be."""
    while True:
        file = os.fdopen(os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = file.read().decode(errors="replace").strip()
            file.close()
            who = f"process {owner}" if owner else "another process"
            raise Failure(f"{path}: in use by {who}; choose another --out") from None
        if os.fstat(file.fileno()).st_nlink:
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
            return file
        file.close()  # its owner removed it between our opening and locking it
