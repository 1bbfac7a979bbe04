"""From sound files to rows of features: reading, decoding, cutting, transforming."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stapes.audio import AudioError, Features, load
from stapes.data._cache import Computed, Part
from stapes.data._pool import in_order
from stapes.data._types import Floats
from stapes.data._windows import windows

_BLOCK_SAMPLES = 1 << 20
"""Samples handed to the features at a time, so that hours of sound do not fill the memory."""

_MAX_SECONDS = 10.0


class Source(NamedTuple):
    """A sound file whose content was read."""

    path: Path
    digest: str
    """BLAKE2b of the content."""
    seconds: float | None
    """Length as its header tells; None where that cannot be read."""
    state: tuple[int, int, int]
    """Inode, size and time of change, to see that it stays as it is."""


def probe(paths: Sequence[Path]) -> Iterator[Source | str]:
    """Yield for each path what file it is, or why it cannot be read."""
    return in_order(_probe, paths)


def _probe(path: Path) -> Source | str:
    import soundfile

    try:
        state = _state(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return getattr(error, "strerror", None) or str(error)
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:  # decoding will tell the reason
        return Source(path, digest, None, state)
    return Source(path, digest, info.frames / info.samplerate, state)


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def default_clip_seconds(seconds: Sequence[float]) -> float:
    """Return the 95th percentile of the clips' lengths (those that are known), at most 10 s."""
    known = [value for value in seconds if value > 0]
    return min(_MAX_SECONDS, float(np.percentile(known, 95))) if known else _MAX_SECONDS


def compute(
    source: Source, parts: Sequence[Part], features: Features, clip_samples: int
) -> Computed:
    """Decode a sound file once, and compute the features of the windows of each of its parts.

    Raises
    ------
    RuntimeError
        If the file has changed since it was probed.
    """
    try:
        samples, _ = load(source.path, sample_rate=features.sample_rate)
    except AudioError as error:
        samples, reason = None, error.reason
    if _state(source.path) != source.state:
        raise RuntimeError(f"{source.path}: changed while it was read; try again")
    if samples is None:
        return Computed([reason] * len(parts), [])
    lengths: list[int | str] = []
    rows: list[Floats] = []
    for part in parts:
        clip = _cut(samples, part, features.sample_rate)
        if clip.size == 0:
            held = samples.size / features.sample_rate
            lengths.append(f"nothing at {part.start:g} s: the file holds {held:.3f} s")
            continue
        try:
            rows += list(_transform(windows(clip, clip_samples), features))
            lengths.append(clip.size)
        except ValueError as error:
            lengths.append(str(error))
    return Computed(lengths, rows)


def _cut(samples: Floats, part: Part, rate: int) -> Floats:
    stop = samples.size if math.isinf(part.end) else round(part.end * rate)
    return samples[round(part.start * rate) : stop]


def _transform(clips: Floats, features: Features) -> Iterator[Floats]:
    count = max(1, _BLOCK_SAMPLES // clips.shape[1])
    shape = (features.frames(clips.shape[1]), features.bands)
    for start in range(0, len(clips), count):
        block = np.ascontiguousarray(features(clips[start : start + count]), np.float32)
        if block.shape[1:] != shape:
            raise RuntimeError(
                f"features: frames() and bands tell {shape}, but the clips gave {block.shape[1:]}"
            )
        if not np.isfinite(block).all():
            raise ValueError("its features are not finite")
        yield block
