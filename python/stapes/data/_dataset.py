"""Labelled clips of one length, as features on disk."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stapes.audio import Features, Normalized
from stapes.data._prepare import prepare
from stapes.data._split import split_mask
from stapes.data._types import Clip, Floats, Ints, Seed, Skipped, seed_sequence

_BLOCK = 256
"""Samples read at a time to compute statistics."""


class AudioData:
    """Labelled clips, cut to one length and turned into features; `AudioFolder` and `Manifest` are.

    Features are computed once, in parallel (``features`` is called from several threads), and kept
    in a cache on disk (see `stapes.data`), from which batches are read.

    Attributes
    ----------
    classes : list of str
        Names; a label is an index into them.
    labels : ndarray of int64
        (samples,). A long clip gives several samples.
    groups, paths : list of str
        The group and the file of each sample.
    starts : ndarray of float64
        Where in its file each sample begins, in seconds.
    skipped : list of dict
        ``{"path", "reason"}`` of each file, or part of one, that could not be used.
    features : Features
        What made the features; an `audio.Normalized` after `normalized`.
    clip_seconds : float
        Length of each sample.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        classes: Sequence[str],
        *,
        features: Features,
        clip_seconds: float | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        skipped: Skipped | None = None,
        missing_ok: bool = False,
    ) -> None:
        if not isinstance(features, Features):
            raise TypeError(
                f"{type(self).__name__}: features must be stapes.audio features, for example"
                f" LogMel(), got {features!r}"
            )
        # The cache holds what is under a normalisation, which is applied as batches are read.
        inner = features.inner if isinstance(features, Normalized) else features
        ready = prepare(clips, inner, clip_seconds, cache_dir, progress)
        self.features: Features = features
        self.classes: list[str] = list(classes)
        self.skipped: Skipped = sorted([*(skipped or []), *ready.skipped], key=lambda s: s["path"])
        self.clip_seconds: float = ready.clip_seconds
        ids = {name: label for label, name in enumerate(self.classes)}
        samples = ready.samples
        self.labels: Ints = np.array([ids[s.clip.label] for s in samples], np.int64)
        self.groups: list[str] = [s.clip.group for s in samples]
        self.paths: list[str] = [str(s.clip.path) for s in samples]
        self.starts: npt.NDArray[np.float64] = np.array([s.seconds for s in samples], np.float64)
        self._contents = [s.content for s in samples]
        self._rows: Ints = np.array([s.row for s in samples], np.int64)
        self._array = ready.rows
        self._check_classes(clips, missing_ok)

    def _check_classes(self, clips: Sequence[Clip], missing_ok: bool) -> None:
        reasons = {skip["path"]: skip["reason"] for skip in self.skipped}
        for label, name in enumerate(self.classes):
            if np.any(self.labels == label) or (missing_ok and len(self.labels)):
                continue
            files = list(dict.fromkeys(str(clip.path) for clip in clips if clip.label == name))
            told = [f"\n  {file}: {reasons[file]}" for file in files[:5]]
            more = f"\n  and {len(files) - 5} more" if len(files) > 5 else ""
            raise ValueError(f"class {name!r} has no readable sound file" + "".join(told) + more)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: npt.ArrayLike) -> Self:
        """Return the samples at ``indices`` (or where a mask is True); nothing is copied on disk.

        Parameters
        ----------
        indices : array_like of int or bool
            Which samples, in which order.

        Returns
        -------
        AudioData
            Of the same classes and features.
        """
        wanted = np.asarray(indices)
        chosen = np.arange(len(self))[wanted if wanted.size else slice(0, 0)]
        part = copy.copy(self)
        part.labels, part.starts = self.labels[chosen], self.starts[chosen]
        part._rows = self._rows[chosen]
        part.groups = [self.groups[i] for i in chosen]
        part.paths = [self.paths[i] for i in chosen]
        part._contents = [self._contents[i] for i in chosen]
        return part

    def split(self, fraction: float, *, seed: Seed, groups: bool = True) -> tuple[Self, AudioData]:
        """Split in two parts, each class in the same proportion, for training and validation.

        Samples of one file (or of files with the same content) stay together; with ``groups`` so do
        those of one group. Where a class could not be on both sides that way (it lies in one group
        only, say), its files are split one by one instead, and a warning says so. Another one tells
        where large groups make the share less than half of ``fraction``, or more than twice.

        Parameters
        ----------
        fraction : float
            Share of the second part, between 0 and 1: as near to it as the groups allow.
        seed : int, sequence of int or SeedSequence
            The same seed gives the same parts.
        groups : bool
            Whether groups stay together.

        Returns
        -------
        (AudioData, AudioData)
            The rest, and the chosen ``fraction``.

        Raises
        ------
        ValueError
            If ``fraction`` is not between 0 and 1, or a class has one file only.
        """
        chosen = split_mask(
            self.labels,
            self.groups,
            self._contents,
            self.classes,
            fraction=fraction,
            seed=seed,
            by_group=groups,
        )
        return self.subset(~chosen), self.subset(chosen)

    def digest(self) -> str:
        """Return what tells whether two sets are the same samples in the same order, 32 digits.

        BLAKE2b of the content of the files, where in them samples begin and how long they are, and
        the labels; not of where the files lie.
        """
        digest = hashlib.blake2b(repr((self.clip_seconds, self.classes)).encode(), digest_size=16)
        for content, start, label in zip(self._contents, self.starts, self.labels, strict=True):
            digest.update(f"{content} {float(start)!r} {int(label)}\n".encode())
        return digest.hexdigest()

    def batches(
        self, batch_size: int, *, shuffle: bool = False, seed: Seed = 0, start: int = 0
    ) -> Iterator[tuple[Floats, npt.NDArray[Any]]]:
        """Read all samples once, batch by batch.

        Parameters
        ----------
        batch_size : int
            Samples in a batch; the last one may be shorter.
        shuffle : bool
            Whether the order is drawn from ``seed``.
        seed : int, sequence of int or SeedSequence
            The same seed gives the same batches.
        start : int
            Number of batches to leave out; those after them are the same as without it.

        Yields
        ------
        x : ndarray of float32
            (samples, frames, bands, 1), to be kept or changed freely.
        y : ndarray of int64
            (samples,).

        Raises
        ------
        ValueError
            If ``batch_size`` is below 1 or ``start`` below 0.
        """
        if batch_size < 1 or start < 0:
            raise ValueError(
                "batches: batch_size must be at least 1 and start at least 0, "
                f"got {batch_size} and {start}"
            )
        order = np.arange(len(self))
        if shuffle:
            order = np.random.default_rng(seed_sequence(seed)).permutation(len(self))
        parts = (
            order[i : i + batch_size] for i in range(start * batch_size, len(self), batch_size)
        )
        return ((self._read(part), self.labels[part]) for part in parts)

    def _read(self, indices: Ints) -> Floats:
        x = self._array[self._rows[indices]]
        if isinstance(self.features, Normalized):
            x = self.features.normalize(x)
        return x[..., np.newaxis]

    def statistics(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Compute mean and standard deviation of each band, over all frames of all samples.

        Blocks are joined by Chan, Golub and LeVeque's update (1983), in float64. Where a band does
        not vary its standard deviation is given as 1, so that one may divide by it.

        Returns
        -------
        mean, std : ndarray of float64
            (bands,).

        Raises
        ------
        ValueError
            If there are no samples.
        """
        if not len(self):
            raise ValueError("statistics: there are no samples")
        count, mean, squares = 0, np.zeros(self.features.bands), np.zeros(self.features.bands)
        for first in range(0, len(self), _BLOCK):
            block = self._read(np.arange(first, min(first + _BLOCK, len(self))))
            values = block.reshape(-1, block.shape[2]).astype(np.float64)
            block_mean = values.mean(axis=0)
            delta, total = block_mean - mean, count + len(values)
            squares += ((values - block_mean) ** 2).sum(axis=0)
            squares += delta**2 * (count * len(values) / total)
            mean += delta * (len(values) / total)
            count = total
        std = np.sqrt(squares / count)
        std[std <= 1e-7 * np.maximum(1.0, np.abs(mean))] = 1.0
        return mean, std

    def normalized(self, mean: npt.ArrayLike, std: npt.ArrayLike) -> Self:
        """Return the same samples as ``(value - mean) / std`` of each band.

        The features on disk are shared, so this costs nothing until batches are read.

        Parameters
        ----------
        mean, std : array_like
            (bands,), as from `statistics` of the training set.

        Returns
        -------
        AudioData
            With an `audio.Normalized` as its ``features``.

        Raises
        ------
        ValueError
            If they are normalised already, or ``mean`` or ``std`` has not one value a band.
        """
        if isinstance(self.features, Normalized):
            raise ValueError("normalized: these samples are normalised already")
        same = copy.copy(self)
        same.features = Normalized(self.features, mean, std)
        return same
