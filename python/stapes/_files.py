"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of ``path`` when the block ends without an error.

    The bytes go to a temporary name in the same folder, are synced to the disk, and the name is
    changed: whoever reads ``path``, at any time and also after a crash, finds the old file or the
    new one. After an error the temporary file is gone and ``path`` is what it was.

    Parameters
    ----------
    path : path
        File to create or to replace; a symbolic link is followed. A device or a pipe has nothing
        to keep whole and is written to as it is.

    Yields
    ------
    binary file

    Raises
    ------
    OSError
        Naming ``path`` and the reason, for example a full disk.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with _named_errors(path), target.open("wb", buffering=0) as device:
            yield device
        return
    with _named_errors(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        _remove_abandoned(target)
        temporary, file = _open_temporary(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)


@contextmanager
def _named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which file could not be written; errors that name another file of the caller pass."""
    folder = Path(os.path.realpath(path)).parent
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(error.filename).parent != folder:
            raise
        reason = error.strerror or str(error)
        text = f"cannot write the file: {reason} (what was there before is unchanged)"
        raise OSError(error.errno or errno.EIO, text, os.fspath(path)) from error


def _open_temporary(target: Path) -> tuple[Path, BinaryIO]:
    """Create a new file beside ``target``, locked as long as it is open (see _remove_abandoned)."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        file = os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # removed between its creation and its lock


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files that a killed process left: nobody holds their lock any more."""
    for path in target.parent.glob(f".{_literal(target.name)}.*.tmp"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
