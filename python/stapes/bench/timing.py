"""Interleaved timing: ratios between functions measured in one run, on one machine, in turn."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from stapes import _core

Work = Callable[[], object]
Thing = TypeVar("Thing")

_PEAK_STEPS = 400_000
_CALM = 0.08
"""A run is disturbed where the median of the core's speed lies further than this below its best,"""

_MOST_INTERRUPTIONS = 40
"""or where others took a core away from it more than so many times a second."""

_ATTEMPTS = 3


OURS = "stapes"


@dataclass(frozen=True)
class Median:
    """The median of repeats.

    Attributes
    ----------
    median : float
        Seconds, or a ratio.
    spread : float
        Half the distance between the quartiles, as a share of the median.
    """

    median: float
    spread: float


@dataclass(frozen=True)
class Run:
    """Functions timed in turn.

    Attributes
    ----------
    times : dict of str to Median
        Seconds of each function.
    ratios : dict of str to Median
        Of the others' times to that of "stapes" in the same round: what slows down a round slows
        down both, so they scatter less than the times.
    peak : float
        FLOP/s of one core in multiply-adds, median over the run.
    disturbance : float
        How far that median lies below the best: a core whose clock changes, or that another
        virtual machine uses, is slow at times.
    interruptions : float
        How many times a second the system gave a core to something else.
    """

    times: dict[str, Median]
    ratios: dict[str, Median]
    peak: float
    disturbance: float
    interruptions: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether the figures are not to be relied on."""
        return self.disturbance > _CALM or self.interruptions > _MOST_INTERRUPTIONS


def fma_peak(float64: bool = False) -> float:
    """Measure the multiply-add rate of one core now, in FLOP/s."""
    start = time.perf_counter()
    flops = _core.fma_peak(_PEAK_STEPS, float64)
    return flops / (time.perf_counter() - start)


def host_seconds(work: Work) -> float:
    """Return how long a call takes by the host's clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(
    functions: Mapping[str, Work],
    *,
    seconds: float = 1.0,
    least: int = 7,
    float64: bool = False,
    clock: Callable[[Work], float] = host_seconds,
) -> Run:
    """Time functions in turn until ``seconds`` have passed; again where the run was disturbed.

    Every round also measures the core's peak, so that a machine that changes its clock is seen to.

    Parameters
    ----------
    functions : mapping of str to callable
        Called without arguments.
    seconds : float
        Time to spend on one attempt, of which there are at most three; the calmest counts.
    least : int
        Rounds at least.
    float64 : bool
        The precision of the peak.
    clock : callable
        What times a call, in seconds.

    Returns
    -------
    Run
        Medians over the rounds.
    """
    runs: list[Run] = []
    while len(runs) < _ATTEMPTS and not (runs and not runs[-1].disturbed):
        runs.append(_attempt(functions, seconds, least, float64, clock))
    return calmest(runs)


def calmest(runs: list[Run]) -> Run:
    """Return the run that was disturbed least."""
    return min(runs, key=lambda run: (run.disturbed, run.disturbance))


def rotated(things: Mapping[str, Thing], turn: int) -> list[tuple[str, Thing]]:
    """Return the items, each turn beginning with another: none always follows the same one."""
    items = list(things.items())
    first = turn % len(items)
    return items[first:] + items[:first]


def interruptions() -> int:
    """Return how often this process had to give up a core that it could have used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _attempt(
    functions: Mapping[str, Work],
    seconds: float,
    least: int,
    float64: bool,
    clock: Callable[[Work], float],
) -> Run:
    times: dict[str, list[float]] = {name: [] for name in functions}
    peaks: list[float] = []
    for work in functions.values():
        work()
    before, start = interruptions(), time.perf_counter()
    while len(peaks) < least or time.perf_counter() < start + seconds:
        for name, work in rotated(functions, len(peaks)):
            times[name].append(clock(work))
        peaks.append(fma_peak(float64))
    rate = (interruptions() - before) / (time.perf_counter() - start)
    return summarize(times, peaks, rate)


def summarize(
    times: Mapping[str, list[float]], peaks: list[float], interrupted: float = 0.0
) -> Run:
    """Return medians and spreads of what was timed in turn, a value of each in each round."""
    peak = statistics.median(peaks)
    ours = times.get(OURS, [])
    ratios = {
        name: median([theirs / own for theirs, own in zip(values, ours, strict=True)])
        for name, values in times.items()
        if ours and name != OURS
    }
    medians = {name: median(values) for name, values in times.items()}
    return Run(medians, ratios, peak, 1 - peak / max(peaks), interrupted)


def median(values: list[float]) -> Median:
    """Return the median of some values, and how far they scatter."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Median(middle, (high - low) / 2 / middle)
