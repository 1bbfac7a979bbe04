"""What changed between two results, past the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stapes.bench.report import Result, Row
from stapes.bench.timing import OURS

_LEAST = 0.03
"""A change below this share is noise whatever the spread within the runs: code moves in memory."""


@dataclass(frozen=True)
class Change:
    """How one piece of work fares in the new result.

    Attributes
    ----------
    old, new : Row
        Of the same work.
    ratio : float
        Old time over new, each in cycles of the core's multiply-adds then, so that another clock
        rate cancels: above 1 is faster.
    noise : float
        How far from 1 means nothing.
    """

    old: Row
    new: Row
    ratio: float
    noise: float

    @property
    def same_programs(self) -> bool:
        """Whether both ran beside the same programs, which leave caches in other states."""
        return self.old.times.keys() == self.new.times.keys()

    @property
    def verdict(self) -> str:
        """What to say of it."""
        if self.old.disturbed or self.new.disturbed:
            return "disturbed"
        if self.ratio < 1 / (1 + self.noise):
            return "slower"
        return "faster" if self.ratio > 1 + self.noise else "same"


def changes(old: Result, new: Result) -> Iterator[Change]:
    """Yield the changes of all work that both hold."""
    before = {row.key: row for row in old.rows}
    for row in new.rows:
        then = before.get(row.key)
        if then is None:
            continue
        times = then.times[OURS], row.times[OURS]
        ratio = times[0].median * then.peak / (times[1].median * row.peak)
        yield Change(then, row, ratio, max(_LEAST, 2 * (times[0].spread + times[1].spread)))
