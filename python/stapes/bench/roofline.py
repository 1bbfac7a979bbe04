"""The picture: what each kernel reaches under the machine's roof, and of its own limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stapes.bench.report import Result
from stapes.bench.timing import OURS

_INK, _ROOF = "#1f6f8b", "#888888"
_PEERS = ("#d1495b", "#edae49", "#66a182")


def draw(result: Result, path: Path) -> None:
    """Draw the roofline beside bars of the share of the limit, and write it as the suffix says.

    Raises
    ------
    ValueError
        If matplotlib is not installed, or cannot write such a file.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("--plot needs matplotlib: pip install 'stapes[report]'") from None
    figure = Figure(figsize=(13, 1.8 + 0.28 * max(14, len(result.rows))), layout="constrained")
    roof, bars = figure.subplots(1, 2)
    _roof(roof, result)
    _bars(bars, result)
    machine = result.machine
    figure.suptitle(f"{machine.name}, {machine.isa}, {machine.threads} thread(s), {result.date}")
    figure.savefig(path, dpi=120)


def _roof(axes: Any, result: Result) -> None:
    machine = result.machine
    rows = [row for row in result.rows if row.flops and row.moved]
    intensity = [row.flops / row.moved for row in rows]
    ridge = machine.flops / machine.bandwidth
    low, high = min([*intensity, ridge / 4]) / 2, max([*intensity, ridge * 4]) * 2
    x = np.geomspace(low, high, 200)
    axes.plot(x, np.minimum(x * machine.bandwidth, machine.flops) / 1e9, color=_ROOF)
    speed = [row.flops / row.times[OURS].median / 1e9 for row in rows]
    axes.scatter(intensity, speed, color=_INK, zorder=3)
    for row, place in zip(rows, zip(intensity, speed, strict=True), strict=True):
        axes.annotate(
            f"{row.what} {row.on}", place, fontsize=6, xytext=(4, 3), textcoords="offset points"
        )
    axes.set(
        xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="GFLOP/s of the dense operations",
        title="Roofline",
    )  # fmt: skip
    axes.grid(which="both", alpha=0.2)


def _bars(axes: Any, result: Result) -> None:
    rows = [row for row in result.rows if row.limit]
    programs = list(dict.fromkeys(name for row in rows for name in row.times))
    colors = dict(zip([n for n in programs if n != OURS], _PEERS, strict=False)) | {OURS: _INK}
    height = 0.8 / max(1, len(programs))
    for place, name in enumerate(programs):
        measured = [(i, row) for i, row in enumerate(rows) if name in row.times]
        axes.barh(
            [i + place * height for i, _ in measured],
            [100 * row.limit / row.times[name].median for _, row in measured],
            height, label=name, color=colors.get(name, _ROOF),
        )  # fmt: skip
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(rows))])
    axes.set_yticklabels([f"{row.what} {row.on}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(100, color=_ROOF, linewidth=1)
    axes.set(xlabel="% of the limit: multiply-adds or memory, whichever binds")
    if programs:
        axes.legend()
