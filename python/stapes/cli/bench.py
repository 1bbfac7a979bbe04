"""``stapes bench``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stapes.cli._errors import reported, say
from stapes.cli._options import Json

if TYPE_CHECKING:
    from stapes.bench.machine import Machine
    from stapes.bench.report import Result, Row

_ABOUT = """Measure kernels, training steps and features beside the machine's limits and peers.

\b
    stapes bench ops --op conv2d --shape conv2          one operator, one shape
    stapes bench ops --shape 8x40x101x1,64x3x3x1        a shape of your own: x, w, options
    stapes bench step --batch 32                        whole networks, each program a process
    stapes bench scaling --network seed_64x64x1         how time grows with batch, area, threads
    stapes bench ops --json old.json                    ... and after a change, with new.json:
    stapes bench compare old.json new.json              ends with 3 where something is slower

All that is compared runs in turn; figures are medians, ± half the distance between the quartiles.
The machine's limits are measured first; kernels that leave operations out may exceed 100 % of
them. A run during which the machine did something else is repeated, and says so if that does not
help.
"""

bench = typer.Typer(
    name="bench", help=_ABOUT, no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


class Kind(StrEnum):
    """Number formats of operators."""

    float32 = "float32"
    float64 = "float64"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Where(StrEnum):
    """Where operators run."""

    cpu = "cpu"
    cuda = "cuda"


Threads = Annotated[int, typer.Option(min=1, help="Threads of every program.")]
Peers = Annotated[
    str | None,
    typer.Option(
        "--peer",
        help="Programs to compare with, by commas, '' for none; those installed by default. ops:"
        " torch (channels_last), torch-nchw, and only when asked for onednn (forward, in its own"
        " layout); step: torch, torch-nchw, torch-compile; features: librosa, torch.",
    ),
]
Seconds = Annotated[float, typer.Option(min=0, help="Time for each measurement.")]
Csv = Annotated[Path | None, typer.Option(help="Write a line for each program here.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write everything here, for `stapes bench compare`.")
]
Plot = Annotated[
    Path | None, typer.Option(help="Draw the roofline here: PNG, SVG or PDF (needs matplotlib).")
]


@bench.command()
def ops(
    op: Annotated[
        list[str] | None,
        typer.Option(help="Operators whose name begins so, such as conv2d_wgrad; repeatable."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="A shape's name, or NxHxWxC,KxRxSxC[,stride=2][,padding=1]; repeatable."),
    ] = None,
    dtype: Annotated[Kind, typer.Option(help="float16 and bfloat16 on a GPU only.")] = Kind.float32,
    device: Annotated[Where, typer.Option(help="Where to compute.")] = Where.cpu,
    threads: Threads = 1,
    peer: Peers = None,
    seconds: Seconds = 0.5,
    json: JsonFile = None,
    csv: Csv = None,
    plot: Plot = None,
) -> None:
    """Measure operators: GFLOP/s, GB/s, percent of the machine's limit, error against float64."""
    with reported():
        from stapes.bench import peers, suite
        from stapes.bench.allocator import restart
        from stapes.bench.machine import gpu
        from stapes.bench.shapes import shape as parsed

        if device == Where.cpu and dtype in (Kind.float16, Kind.bfloat16):
            raise ValueError(f"--dtype: {dtype} is computed on a GPU only: add --device cuda")
        if device == Where.cuda and dtype == Kind.float64:
            raise ValueError("--dtype: a GPU computes float32, float16 and bfloat16, not float64")
        work = suite.plan(op or [], [parsed(text) for text in shape or []])
        _check_files(json, csv, plot)
        if device == Where.cuda:
            _check_cuda()
        peers.check(peer)
        restart(threads)
        chosen = peers.chosen(peer, threads)
        settings = suite.Settings(dtype, device, threads, chosen, seconds)
        machine = gpu(dtype) if device == Where.cuda else _host(threads, dtype)
        _measure(machine, suite.rows(work, settings, machine), len(work), json, csv, plot)


@bench.command()
def step(
    network: Annotated[
        list[str] | None, typer.Option(help="A network's name; repeatable; all by default.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; repeatable.")] = None,
    threads: Threads = 1,
    peer: Peers = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Time for training, and again for inference.")
    ] = 8,
    json: JsonFile = None,
    csv: Csv = None,
    plot: Plot = None,
) -> None:
    """Measure training steps and inference of whole networks, and peak memory, loss and density."""
    with reported():
        from stapes.bench import steps
        from stapes.bench.networks import NETWORKS

        names = [steps.check(name) for name in network or NETWORKS]
        programs = steps.programs(peer)
        _check_files(json, csv, plot)
        machine = _host(threads, "float32")
        work = [(name, size) for name in names for size in batch or [32]]

        def rows() -> Iterator[Row]:
            for name, size in work:
                yield from steps.measure(name, size, threads, programs, seconds, machine, say)

        _measure(machine, rows(), 2 * len(work), json, csv, plot)


@bench.command()
def scaling(
    network: Annotated[str, typer.Option(help="A network's name.")] = "seed_64x64x3",
    batch: Annotated[int, typer.Option(min=1, help="Batch size of the reference.")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="Threads up to which to go.")] = 2,
    seconds: Seconds = 10,
    json: Json = False,
) -> None:
    """Measure how a training step's time grows with batch, input area and threads."""
    with reported():
        from stapes.bench import report
        from stapes.bench import scaling as grown
        from stapes.bench.allocator import restart
        from stapes.cli._output import print_json, print_table

        chosen = list(grown.settings(network, batch, threads))
        restart(threads)
        machine = _host(1, "float32")
        say(f"Timing {len(chosen)} kinds of step in turn ...")
        points, run = grown.measure(chosen, seconds)
        if json:
            shown = ("axis", "label", "size", "batch", "threads")
            found = [
                {**{name: getattr(p.setting, name) for name in shown}, "seconds": p.seconds}
                | {"spread": p.spread, "time": p.time, "linear": p.linear}
                for p in points
            ]
            about = {"machine": report.heading(machine), "network": network}
            print_json({**about, "disturbed": run.disturbed, "points": found})
            return
        rows = [
            [
                *(p.setting.axis, p.setting.label, f"{p.seconds * 1e3:.3f} ± {p.spread:.0%}"),
                *(f"{p.time:.3f}", f"{p.linear:.2f}"),
            ]
            for p in points
        ]
        title = f"{network}, batch {batch}, {report.heading(machine)}"
        print_table(title, ["", "", "ms", "of the reference", "of linear"], rows)
        if run.disturbed:
            say("The machine did something else meanwhile: the figures are not to be relied on.")


@bench.command()
def features(
    threads: Threads = 1,
    peer: Peers = None,
    seconds: Seconds = 2,
    json: JsonFile = None,
    csv: Csv = None,
) -> None:
    """Measure log-mel spectrograms beside librosa's and PyTorch's."""
    with reported():
        from stapes.bench import features as sound
        from stapes.bench.allocator import restart

        peers = sound.chosen(peer)
        _check_files(json, csv, None)
        restart(threads)
        machine = _host(threads, "float32")
        rows = sound.rows(threads, peers, seconds)
        _measure(machine, rows, len(sound.TASKS), json, csv, None)


@bench.command()
def compare(
    old: Annotated[Path, typer.Argument(help="A result that --json wrote.", exists=True)],
    new: Annotated[Path, typer.Argument(help="A later one.", exists=True)],
    json: Json = False,
) -> None:
    """Compare two results; exit status 3 where something is slower past the noise."""
    with reported():
        from stapes.bench import report
        from stapes.bench.compare import changes
        from stapes.cli._output import print_json, print_table

        before, after = report.load(old), report.load(new)
        found = list(changes(before, after))
        if not found:
            raise ValueError(f"{old} and {new} have no measurement in common")
        slower = [change for change in found if change.verdict == "slower"]
        if json:
            print_json(
                [
                    {"key": c.new.key, "ratio": c.ratio, "noise": c.noise, "verdict": c.verdict}
                    for c in found
                ]
            )
        else:
            rows = [
                [c.new.what, c.new.on, f"{c.ratio:.2f}", f"{c.noise:.2f}", c.verdict] for c in found
            ]
            print_table("Old time over new", ["", "on", "ratio", "noise", ""], rows)
        alone = len(before.rows) + len(after.rows) - 2 * len(found)
        if alone:
            say(f"{alone} measurements are in one of the files only.")
        if not all(change.same_programs for change in found):
            say("Warning: the two did not run beside the same peers, which changes what is cached.")
        if slower:
            raise typer.Exit(3)


def _check_files(json: Path | None, csv: Path | None, plot: Path | None) -> None:
    """Raise now for what could not be written at the end."""
    from importlib.util import find_spec

    for path in filter(None, (json, csv, plot)):
        if not path.parent.is_dir():
            raise ValueError(f"{path}: the folder {path.parent} does not exist")
    if plot and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot: the name must end with .png, .svg or .pdf, got {plot.name}")
    if plot and not find_spec("matplotlib"):
        raise ValueError("--plot needs matplotlib: pip install 'stapes[report]'")


def _check_cuda() -> None:
    from stapes.device import cuda_reason

    reason = cuda_reason()
    if reason is not None:
        raise RuntimeError(f"--device cuda: {reason}")


def _host(threads: int, dtype: str) -> Machine:
    import stapes
    from stapes.bench.machine import host

    stapes.set_num_threads(threads)
    say("Measuring the machine's limits ...")
    return host(threads, float64=dtype == "float64")


def _measure(
    machine: Machine,
    rows: Iterable[Row],
    count: int,
    json: Path | None,
    csv: Path | None,
    plot: Path | None,
) -> None:
    """Measure, then show, write and draw all rows; those there are where it is interrupted.

    Each row is told as soon as it is known, and stands in the JSON file from then on.
    """
    from stapes.bench import report

    say(report.heading(machine))
    result = report.Result(machine, shlex.join(["stapes", *sys.argv[1:]]), [])
    try:
        with _progress(count) as advance:
            for row in rows:
                result.rows.append(row)
                if json:
                    report.save(result, json)
                say(report.line(row))
                advance(f"{row.what} {row.on}")
    finally:
        if result.rows:
            _show(result, json, csv, plot)


def _show(result: Result, json: Path | None, csv: Path | None, plot: Path | None) -> None:
    from stapes.bench import report, roofline
    from stapes.cli._output import print_table

    columns = [column.name for column in report.COLUMNS]
    print_table(report.heading(result.machine), columns, [report.cells(row) for row in result.rows])
    _print_facts(result)
    if json:
        report.save(result, json)
    if csv:
        report.save_csv(result, csv)
    if plot:
        roofline.draw(result, plot)


@contextmanager
def _progress(count: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=count)

        def advance(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield advance


def _print_facts(result: Result) -> None:
    for row in result.rows:
        for name, value in row.facts.items():
            print(f"{row.what} {row.on}: {name}: {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
