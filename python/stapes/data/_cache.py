"""Features of many files in one memory-mapped array on disk, computed once.

An entry is two files named by a key, the BLAKE2b digest of all that the values depend on: the
content of each sound file and the part of it that is used, ``features.config()``, the length of a
window, and the versions of the code and of the decoders. ``KEY.npy`` holds the windows of all
files, (n, frames, bands) float32; ``KEY.json`` tells whose rows are whose, with a digest of each
file's rows, and is written last: without it, or where it does not fit the array, the entry is built
again. Both appear whole or not at all, and a lock makes a second process wait for the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stapes import __version__, audio
from stapes._files import atomic_write
from stapes.audio import Features
from stapes.data import _windows
from stapes.data._pool import in_order
from stapes.data._types import Floats

_FORMAT = 1


class Part(NamedTuple):
    """A stretch of a sound file, known by the file's content; seconds."""

    digest: str
    start: float
    end: float


class Computed(NamedTuple):
    """What came of one sound file."""

    lengths: list[int | str]
    """One for each part: its length in samples, or why it cannot be used."""
    rows: list[Floats]
    """The windows of the usable parts, in order; (n, frames, bands) each."""


class Entry(NamedTuple):
    """An entry of the cache, open."""

    rows: Floats
    """All windows, (n, frames, bands), memory-mapped and read-only."""
    lengths: list[list[int | str]]
    """As in `Computed`, one list for each sound file."""


def cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder for features: the one given, or ``$STAPES_CACHE``, or the user's cache."""
    if cache_dir is not None:
        return Path(cache_dir)
    if own := os.environ.get("STAPES_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "stapes"


def cache_key(parts: Sequence[Sequence[Part]], features: Features, clip_samples: int) -> str:
    """Return the name of the entry for these parts of sound files."""
    import soundfile
    import soxr

    decoders = [soundfile.__libsndfile_version__, soxr.__version__]
    text = json.dumps(
        [_FORMAT, __version__, _code_digest(), decoders, features.config(), clip_samples, parts],
        sort_keys=True,
    )
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def open_entry(path: Path, shape: tuple[int, int], computed: Iterable[Computed]) -> Entry:
    """Open an entry of the cache; where there is no sound one, build it from ``computed``.

    Parameters
    ----------
    path : path
        The entry's files without their suffix.
    shape : (int, int)
        Frames and bands.
    computed : iterable of Computed
        One for each sound file; iterated only to build.

    Raises
    ------
    OSError
        If the cache cannot be written, for example on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = _read(path, shape)
    if entry is None:
        with _lock(path.with_suffix(".lock")):
            entry = _read(path, shape)
            if entry is None:
                _build(path, shape, computed)
                entry = _read(path, shape)
    if entry is None:
        raise OSError(f"{path}: the features just written cannot be read back")
    return entry


def _build(path: Path, shape: tuple[int, int], computed: Iterable[Computed]) -> None:
    lengths: list[list[int | str]] = []
    counts: list[int] = []
    digests: list[str] = []
    with atomic_write(path.with_suffix(".npy")) as file:
        file.write(_header(0, shape))
        for item in computed:
            for block in item.rows:
                file.write(block.data)
            lengths.append(item.lengths)
            counts.append(sum(len(block) for block in item.rows))
            digests.append(_digest(item.rows))
        file.seek(0)
        file.write(_header(sum(counts), shape))
    body = json.dumps({"lengths": lengths, "counts": counts, "digests": digests}).encode()
    with atomic_write(path.with_suffix(".json")) as file:
        file.write(hashlib.blake2b(body).hexdigest().encode() + b"\n" + body)


def _read(path: Path, shape: tuple[int, int]) -> Entry | None:
    """Return the entry, or None where it is not there or (with a warning) damaged."""
    try:
        digest, _, body = path.with_suffix(".json").read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    try:
        if hashlib.blake2b(body).hexdigest().encode() != digest:
            raise ValueError("the index is not what was written")
        index = json.loads(body)
        rows = _map(path.with_suffix(".npy"), (sum(index["counts"]), *shape))
        _check_rows(rows, index["counts"], index["digests"])
    except (OSError, ValueError) as error:
        warnings.warn(f"{path}: damaged, computed again ({error})", stacklevel=2)
        return None
    return Entry(rows, index["lengths"])


def _map(path: Path, shape: tuple[int, int, int]) -> Floats:
    """Map an array that must be exactly what `_build` writes for this shape."""
    header = _header(shape[0], shape[1:])
    size = 4 * math.prod(shape)
    with path.open("rb") as file:
        if (
            file.read(len(header)) != header
            or os.fstat(file.fileno()).st_size != len(header) + size
        ):
            raise ValueError(f"the array is not {shape} float32, whole")
    if not size:
        return np.empty(shape, np.float32)
    return np.asarray(np.memmap(path, "<f4", "r", len(header), shape))


def _check_rows(rows: Floats, counts: list[int], digests: list[str]) -> None:
    ends = np.cumsum(counts)
    blocks = (rows[end - count : end] for end, count in zip(ends, counts, strict=True))
    found = in_order(lambda block: _digest([block]), blocks)
    for number, (got, digest) in enumerate(zip(found, digests, strict=True)):
        if got != digest:
            raise ValueError(f"the rows of file {number} are not what was written")


def _digest(blocks: Sequence[Floats]) -> str:
    state = hashlib.blake2b(digest_size=8)
    for block in blocks:
        if block.size:  # an empty array has no buffer to give
            state.update(block.data)
    return state.hexdigest()


def _header(rows: int, shape: tuple[int, int]) -> bytes:
    """Return the start of a .npy file; NumPy leaves room, so it is as long for any ``rows``."""
    layout = {"descr": "<f4", "fortran_order": False, "shape": (rows, *shape)}
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, layout)
    return buffer.getvalue()


def _code_digest() -> str:
    """Return a digest of the code that makes features, so that a change of it counts."""
    folder = Path(audio.__file__).parent
    state = hashlib.blake2b(Path(_windows.__file__).read_bytes())
    for source in sorted(folder.glob("*.py")):
        state.update(source.read_bytes())
    return state.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file; the system lets it go when the process ends, however it ends."""
    while True:
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{path}: another process is computing these features, waiting", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_still(file.fileno(), path):
            break
        file.close()  # the holder before us has removed it
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
