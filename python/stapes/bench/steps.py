"""Training steps and inference of whole networks, each program in a process of its own, in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Self

from stapes.bench.allocator import environment
from stapes.bench.machine import Machine
from stapes.bench.networks import NETWORKS
from stapes.bench.report import Row
from stapes.bench.timing import OURS, Run, calmest, fma_peak, rotated, summarize
from stapes.bench.worker import EXACT, PROGRAMS

_LOSSES = 50
_TURN = 0.25
"""Seconds of a turn at least: caches are warm in most of it."""

_SETTLE = 0.02
"""Seconds between turns: another program's threads stop spinning."""

_ROUNDS = 5
_ATTEMPTS = 3


@dataclass(frozen=True)
class Job:
    """What a worker is to do."""

    program: str
    network: str
    batch: int
    threads: int


class Worker:
    """A process of `stapes.bench.worker`."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "stapes.bench.worker", json.dumps(asdict(self.job))]
        self._process = subprocess.Popen(
            command,
            env=environment(self.job.threads, allocator=self.job.program not in (OURS, EXACT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, do: str, steps: int = 0) -> Any:
        """Give a command and wait for the answer.

        Raises
        ------
        RuntimeError
            If the process has ended; its own error is on stderr.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps({"do": do, "steps": steps}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.job.program} on {self.job.network} ended; see above")
        return json.loads(line)


def programs(names: str | None) -> list[str]:
    """Return Stapes and the peers of a list such as "torch,torch-compile"; installed ones if None.

    Raises
    ------
    ValueError
        If there is no such program, or PyTorch is not installed.
    """
    there = find_spec("torch") is not None
    peers = [name for name in PROGRAMS if name != OURS] if there else []
    chosen = peers if names is None else [name for name in names.split(",") if name]
    for name in chosen:
        if name not in PROGRAMS or name == OURS:
            raise ValueError(f"--peer: {name!r} is none of {', '.join(list(PROGRAMS)[1:])}")
    if chosen and not there:
        raise ValueError("--peer: PyTorch is not installed (pip install torch)")
    return [OURS, *chosen]


def measure(
    network: str,
    batch: int,
    threads: int,
    names: Sequence[str],
    seconds: float,
    machine: Machine,
    told: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Measure a network's training step, then its inference.

    Parameters
    ----------
    network : str
        Of `stapes.bench.networks.NETWORKS`.
    names : sequence of str
        Of `stapes.bench.worker.PROGRAMS`, "stapes" among them.
    seconds : float
        For each of the two.
    told : callable
        Gets a line on what is going on.
    """
    with ExitStack() as stack:
        told(f"{network}, batch {batch}: starting {', '.join(names)}")
        jobs = [Job(name, network, batch, threads) for name in names]
        workers = {job.program: stack.enter_context(Worker(job)) for job in jobs}
        curves = {}
        for name, worker in workers.items():
            told(f"{network}, batch {batch}: {_LOSSES} steps of {name}")
            curves[name] = worker.ask("losses", _LOSSES)
        told(f"{network}, batch {batch}: training in turn")
        run = _in_turn(workers, "train", seconds)
        memory = {name: w.ask("memory") for name, w in workers.items()}
        known = workers[OURS].ask("facts")
        facts: dict[str, Any] = {"peak memory, MiB": memory}
        if len(names) > 1 and not known["random"]:
            told(f"{network}, batch {batch}: {_LOSSES} steps in float64")
            with Worker(Job(EXACT, network, batch, threads)) as exact:
                curves[EXACT] = exact.ask("losses", _LOSSES)
            facts["loss curves differ by"] = _differences(curves, OURS)
            facts["loss curves differ from float64 by"] = _differences(curves, EXACT)
        facts["density of the pooled gradient"] = known["density"]
        flops = [batch * f for f in known["flops"]]
        yield _row(Job("training step", network, batch, threads), flops[0], run, facts)
        told(f"{network}, batch {batch}: inferring in turn")
        run = _in_turn(workers, "infer", seconds)
        yield _row(Job("inference", network, batch, threads), flops[1], run, {})


def _row(job: Job, flops: float, run: Run, facts: dict[str, Any]) -> Row:
    on = f"{job.network} x {job.batch}"
    peak = run.peak * job.threads
    key = (job.program, on, "float32", "cpu", job.threads)
    return Row(*key, flops, 0, peak, flops / peak, run.times, run.ratios, {}, run.disturbed, facts)


def _in_turn(workers: dict[str, Worker], do: str, seconds: float) -> Run:
    """Time the workers in turn; again, at most twice, where the machine was disturbed."""
    first = {name: worker.ask(do, 1)["seconds"][0] for name, worker in workers.items()}
    counts = {name: max(2, round(_TURN / seconds)) for name, seconds in first.items()}
    runs: list[Run] = []
    while len(runs) < _ATTEMPTS and not (runs and not runs[-1].disturbed):
        times: dict[str, list[float]] = {name: [] for name in workers}
        peaks: list[float] = []
        interrupted, measured = 0, 0.0
        end = time.perf_counter() + seconds
        while len(times[OURS]) < _ROUNDS or time.perf_counter() < end:
            for name, worker in rotated(workers, len(times[OURS])):
                time.sleep(_SETTLE)
                peaks.append(fma_peak())
                told = worker.ask(do, counts[name])
                times[name].append(statistics.median(told["seconds"]))
                interrupted += told["interruptions"]
                measured += sum(told["seconds"])
        runs.append(summarize(times, peaks, interrupted / measured))
    return calmest(runs)


def _differences(curves: dict[str, list[float]], of: str) -> dict[str, float]:
    """Return how far losses lie from those of one program, at most, as a share of its first."""
    one = curves[of]
    return {
        name: max(abs(a - b) / one[0] for a, b in zip(curve, one, strict=True))
        for name, curve in curves.items()
        if name not in (of, EXACT)
    }


def check(network: str) -> str:
    """Return the name if there is such a network.

    Raises
    ------
    ValueError
        If there is none.
    """
    if network not in NETWORKS:
        raise ValueError(f"--network: {network!r} is none of {', '.join(NETWORKS)}")
    return network
