"""Results: rows, and how they are shown, written and read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stapes import __version__
from stapes._files import atomic_write
from stapes.bench.machine import Machine, now
from stapes.bench.timing import OURS, Median


@dataclass(frozen=True)
class Row:
    """One piece of work, done by Stapes and by peers in turn.

    Attributes
    ----------
    what, on : str
        The operator, step or feature; the shape or network.
    flops, moved : float
        Operations of the dense work; bytes of inputs and results.
    peak : float
        FLOP/s of the machine in multiply-adds, measured meanwhile.
    limit : float
        Seconds that the machine takes for these multiply-adds, or to copy these bytes, whichever
        is more; 0: not known. Kernels that leave operations out may be faster.
    times, ratios : dict of str to Median
        Seconds of each program, "stapes" first; the others' over ours, from round to round.
    errors : dict of str to float
        Norm of the difference from float64 over the norm, where it was computed.
    disturbed : bool
        Whether something else used the machine meanwhile.
    facts : dict
        More about it.
    """

    what: str
    on: str
    dtype: str
    device: str
    threads: int
    flops: float
    moved: float
    peak: float
    limit: float
    times: dict[str, Median]
    ratios: dict[str, Median] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    disturbed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What makes it the same work as another result's."""
        return self.what, self.on, self.dtype, self.device, self.threads

    @property
    def share(self) -> float:
        """The part of the machine's limit that Stapes reaches."""
        return self.limit / self.times[OURS].median

    @property
    def best_peer(self) -> str | None:
        """The program that comes nearest to ours, or is ahead of it."""
        return min(self.ratios, key=lambda name: self.ratios[name].median, default=None)


@dataclass(frozen=True)
class Result:
    """Rows measured on a machine, and the command that did it."""

    machine: Machine
    command: str
    rows: list[Row]
    date: str = field(default_factory=now)
    version: str = __version__


def save(result: Result, path: Path) -> None:
    """Write a result as JSON."""
    _write(path, json.dumps(asdict(result), indent=1) + "\n")


def load(path: Path) -> Result:
    """Read what `save` wrote.

    Raises
    ------
    ValueError
        If the file is no such result.
    """
    try:
        tree = json.loads(path.read_text())
        rows = [
            Row(**{**row, "times": _medians(row["times"]), "ratios": _medians(row["ratios"])})
            for row in tree.pop("rows")
        ]
        return Result(**{**tree, "machine": Machine(**tree["machine"]), "rows": rows})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds no result of stapes bench: {error}") from None


def _medians(tree: dict[str, dict[str, float]]) -> dict[str, Median]:
    return {name: Median(**value) for name, value in tree.items()}


def save_csv(result: Result, path: Path) -> None:
    """Write a line for each row and program."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = "what,on,dtype,device,threads,program,seconds,spread,flops,bytes,limit,error,disturbed"
    writer.writerow(names.split(","))
    for row in result.rows:
        for name, t in row.times.items():
            numbers = [t.median, t.spread, row.flops, row.moved, row.limit]
            writer.writerow([*row.key, name, *numbers, row.errors.get(name, ""), row.disturbed])
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def heading(machine: Machine) -> str:
    """Return a line about the machine and its limits."""
    return (
        f"{machine.name}, {machine.isa}, {machine.threads} thread(s): "
        f"{machine.flops / 1e9:.0f} GFLOP/s in multiply-adds, "
        f"{machine.bandwidth / 1e9:.1f} GB/s copied"
    )


@dataclass(frozen=True)
class Column:
    """A column of the table that people read."""

    name: str
    text: Callable[[Row], str]


def ratio_text(row: Row) -> str:
    """Return how many times as long as ours the best peer takes, such as "1.50 ± 0.02"."""
    if row.best_peer is None:
        return "-"
    ratio = row.ratios[row.best_peer]
    return f"{ratio.median:.2f} ± {ratio.median * ratio.spread:.2f}"


def line(row: Row) -> str:
    """Return what was measured as a line of text."""
    text = f"{row.what} {row.on}: {1e3 * row.times[OURS].median:.3f} ms"
    if row.best_peer is not None:
        text += f", {row.best_peer} takes {ratio_text(row)} times as long"
    return text + (" (disturbed)" if row.disturbed else "")


COLUMNS: Sequence[Column] = (
    Column("", lambda row: row.what),
    Column("on", lambda row: row.on),
    Column("ms", lambda row: f"{1e3 * row.times[OURS].median:.3f}"),
    Column(
        "GFLOP/s",
        lambda row: f"{row.flops / row.times[OURS].median / 1e9:.1f}" if row.flops else "-",
    ),
    Column(
        "GB/s", lambda row: f"{row.moved / row.times[OURS].median / 1e9:.1f}" if row.moved else "-"
    ),
    Column("% of limit", lambda row: f"{100 * row.share:.0f}" if row.limit else "-"),
    Column("best peer", lambda row: row.best_peer or "-"),
    Column("its time / ours", ratio_text),
    Column("error", lambda row: f"{row.errors[OURS]:.1e}" if OURS in row.errors else "-"),
    Column("", lambda row: "disturbed" if row.disturbed else ""),
)


def cells(row: Row) -> list[str]:
    """Return a row of the table."""
    return [column.text(row) for column in COLUMNS]
