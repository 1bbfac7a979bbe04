"""From a list of clips to rows of features, from the cache or computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple

from stapes.audio import Features
from stapes.data._cache import Computed, Part, cache_folder, cache_key, open_entry
from stapes.data._compute import Source, compute, default_clip_seconds, probe
from stapes.data._pool import in_order, with_progress
from stapes.data._types import Clip, Floats, Ints, Skipped
from stapes.data._windows import window_starts


class Sample(NamedTuple):
    """One window of a clip."""

    clip: Clip
    row: int
    seconds: float
    """Where in the file it begins."""
    content: str
    """Digest of the file: two files with the same one are the same recording."""


class Prepared(NamedTuple):
    """Features of clips, and what each row is."""

    rows: Floats
    samples: list[Sample]
    clip_seconds: float
    skipped: Skipped


def prepare(
    clips: Sequence[Clip],
    features: Features,
    clip_seconds: float | None,
    cache_dir: str | os.PathLike[str] | None,
    progress: bool | None,
) -> Prepared:
    """Read, decode, cut and transform; samples come in the order of the clips."""
    if clip_seconds is not None and not 0 < clip_seconds < float("inf"):
        raise ValueError(f"clip_seconds must be a positive number, got {clip_seconds}")
    skipped: Skipped = []
    sources = _read(clips, skipped, progress)
    clips = [clip for clip in clips if str(clip.path) in sources]
    rate = features.sample_rate
    if clip_seconds is None:
        lengths = [_seconds(sources[str(clip.path)], clip) for clip in clips]
        clip_seconds = max(1, round(default_clip_seconds(lengths) * rate)) / rate
    clip_samples = max(1, round(clip_seconds * rate))
    rows, placed = _compute(clips, sources, features, clip_samples, cache_dir, progress)
    samples = []
    for clip in clips:
        part = _part(sources, clip)
        place = placed[part]
        if isinstance(place, str):
            skipped.append({"path": str(clip.path), "reason": place})
            continue
        first, starts = place
        for offset, start in enumerate(starts.tolist()):
            samples.append(Sample(clip, first + offset, clip.start + start / rate, part.digest))
    return Prepared(rows, samples, float(clip_seconds), skipped)


def _read(clips: Sequence[Clip], skipped: Skipped, progress: bool | None) -> dict[str, Source]:
    paths = list(dict.fromkeys(clip.path for clip in clips))
    found = with_progress(probe(paths), len(paths), "Reading files", progress)
    sources = {}
    for path, source in zip(paths, found, strict=True):
        if isinstance(source, str):
            skipped.append({"path": str(path), "reason": source})
        else:
            sources[str(path)] = source
    return sources


def _seconds(source: Source, clip: Clip) -> float:
    return 0.0 if source.seconds is None else min(clip.end, source.seconds) - clip.start


def _part(sources: dict[str, Source], clip: Clip) -> Part:
    return Part(sources[str(clip.path)].digest, clip.start, clip.end)


def _compute(
    clips: Sequence[Clip],
    sources: dict[str, Source],
    features: Features,
    clip_samples: int,
    cache_dir: str | os.PathLike[str] | None,
    progress: bool | None,
) -> tuple[Floats, dict[Part, tuple[int, Ints] | str]]:
    """Return all rows, and for each part its first row and its windows, or why it has none.

    Parts are sorted by content, so that the cache knows them under any name and in any order.
    """
    by_digest = {source.digest: source for source in sources.values()}
    wanted = sorted({_part(sources, clip) for clip in clips})
    parts = [list(same) for _, same in groupby(wanted, key=lambda part: part.digest)]

    def work(same: list[Part]) -> Computed:
        return compute(by_digest[same[0].digest], same, features, clip_samples)

    def computed() -> Iterator[Computed]:
        yield from with_progress(in_order(work, parts), len(parts), "Computing features", progress)

    path = cache_folder(cache_dir) / cache_key(parts, features, clip_samples)
    entry = open_entry(path, (features.frames(clip_samples), features.bands), computed())
    placed: dict[Part, tuple[int, Ints] | str] = {}
    first = 0
    for part, length in zip(wanted, chain.from_iterable(entry.lengths), strict=True):
        if isinstance(length, str):
            placed[part] = length
        else:
            starts = window_starts(length, clip_samples)
            placed[part] = first, starts
            first += len(starts)
    return entry.rows, placed
