"""Two parts of a set of clips: alike in their classes, apart in their groups."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from stapes.data._types import Ints, Seed, seed_sequence

_MAX_ATTEMPTS = 32
_MAX_STEPS = 20_000


def split_mask(
    labels: Ints,
    groups: Sequence[str],
    files: Sequence[str],
    classes: Sequence[str],
    *,
    fraction: float,
    seed: Seed,
    by_group: bool,
) -> npt.NDArray[np.bool_]:
    """Choose about ``fraction`` of the samples of each class; True are the chosen ones.

    Samples of one file are never parted; with ``by_group`` nor are those of one group, except in
    classes that could not be on both sides then: their files are parted one by one, with a warning.
    Another warning tells where large groups make the share miss ``fraction`` by more than twice.

    Raises
    ------
    ValueError
        If ``fraction`` is not between 0 and 1, or a class cannot be on both sides.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split: fraction must lie between 0 and 1, got {fraction}")
    present = set(labels.tolist())
    loose = set() if by_group else set(present)
    while True:
        units = _units(labels, groups, files, loose)
        stuck = {c for c in present if len(set(units[labels == c].tolist())) < 2}
        if not stuck:
            chosen, stuck = _choose(labels, units, fraction, seed)
        if not stuck:
            break
        if stuck <= loose:
            raise ValueError(
                f"split: {_names(stuck, classes)} cannot be on both sides: "
                "each side needs a file of its own"
            )
        loose |= stuck
    mask: npt.NDArray[np.bool_] = np.isin(units, chosen)
    if by_group and loose:
        names = "the classes" if loose == present else _names(loose, classes)
        warnings.warn(
            f"split: {names} cannot be split by group; the files are split one by one there, so "
            "that figures on the second part may be too good",
            stacklevel=3,
        )
    by_file = len(set(units.tolist())) == len(set(files))
    if not by_file and not fraction / 2 <= mask.mean() <= fraction * 2:
        warnings.warn(
            f"split: the second part has {mask.mean():.0%} of the samples, not {fraction:.0%}: "
            "the groups are too large to come nearer (groups=False splits file by file)",
            stacklevel=3,
        )
    return mask


def _names(ids: Iterable[int], classes: Sequence[str]) -> str:
    names = [repr(classes[c]) for c in sorted(ids)]
    return ("class " if len(names) == 1 else "classes ") + ", ".join(names)


def _units(labels: Ints, groups: Sequence[str], files: Sequence[str], loose: set[int]) -> Ints:
    """Return the number of each sample's unit: what a file or a group links stays together."""
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for label, group, file in zip(labels.tolist(), groups, files, strict=True):
        if label not in loose:
            parent[root(("group", group))] = root(("file", file))
    numbers: dict[Hashable, int] = {}
    return np.array(
        [numbers.setdefault(root(("file", file)), len(numbers)) for file in files], np.int64
    )


def _choose(labels: Ints, units: Ints, fraction: float, seed: Seed) -> tuple[list[int], set[int]]:
    """Return the units to take, and the classes that are left without any.

    Units come in a random order, each taken where that brings the counts nearer to what is wanted;
    the best of some orders is kept (they differ only where units hold many samples).
    """
    totals = Counter(labels.tolist())
    counts: list[Counter[int]] = [Counter() for _ in range(int(units.max()) + 1)]
    for label, unit in zip(labels.tolist(), units.tolist(), strict=True):
        counts[unit][label] += 1
    rng = np.random.default_rng(seed_sequence(seed))
    best: tuple[tuple[int, float], list[int], set[int]] | None = None
    for _ in range(min(_MAX_ATTEMPTS, 1 + _MAX_STEPS // len(counts))):
        order = rng.permutation(len(counts)).tolist()
        taken, held = _greedy(order, counts, totals, fraction)
        missing = {c for c in totals if not held[c]}
        loss = sum((held[c] / n - fraction) ** 2 for c, n in totals.items())
        if best is None or (len(missing), loss) < best[0]:
            best = (len(missing), loss), taken, missing
    assert best is not None
    return best[1], best[2]


def _greedy(
    order: list[int], counts: list[Counter[int]], totals: Counter[int], fraction: float
) -> tuple[list[int], Counter[int]]:
    held: Counter[int] = Counter()
    taken: list[int] = []

    def allowed(unit: int) -> bool:  # something of each class stays on the other side
        return all(held[c] + n < totals[c] for c, n in counts[unit].items())

    def change(unit: int) -> float:  # of the sum over classes of (share - fraction)^2
        return sum(
            ((held[c] + n) / totals[c] - fraction) ** 2 - (held[c] / totals[c] - fraction) ** 2
            for c, n in counts[unit].items()
        )

    def take(unit: int) -> None:
        taken.append(unit)
        held.update(counts[unit])

    for unit in order:
        if allowed(unit) and change(unit) < 0:
            take(unit)
    for label in sorted(totals):
        if not held[label]:
            able = [u for u in order if counts[u][label] and allowed(u)]
            if able:
                take(min(able, key=change))
    return taken, held
