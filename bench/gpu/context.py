"""What a stage is told, and how it leaves its findings: one JSON object a line, as it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOG_BYTES = 4 << 20


class NotRunError(Exception):
    """A stage, or a part of one, could not be run; the message is the reason."""


class TimeIsUp(BaseException):
    """Raised at the deadline, wherever the stage is."""


@dataclass(frozen=True)
class Context:
    """One stage's task.

    Attributes
    ----------
    device : str
        "cuda", or "cpu" for a rehearsal.
    arch : str
        What nvcc compiles for, such as "90a"; empty on the CPU.
    deadline : float
        Of `time.time`; the stage ends itself before it.
    work : str
        Folder of the build, kept between runs.
    out : str
        Folder of the report.
    records : str
        File to which findings are appended.
    """

    device: str
    arch: str
    deadline: float
    work: str
    out: str
    records: str

    @property
    def cuda(self) -> bool:
        """Whether this is no rehearsal."""
        return self.device == "cuda"

    @property
    def site(self) -> Path:
        """Where the package is installed."""
        return Path(self.work) / "site"

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.time()

    def record(self, kind: str, **fields: Any) -> None:
        """Append a finding."""
        with Path(self.records).open("a") as file:
            file.write(json.dumps({"kind": kind, **fields}) + "\n")

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of programs that use the installed package."""
        path = [str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}

    def save(self, path: Path) -> None:
        """Write it for `start` to read."""
        path.write_text(json.dumps(asdict(self)))


def start(stage: Callable[[Context], None]) -> None:
    """Run a stage as a program: ``python stage.py CONTEXT.json``.

    The last record says how it ended. A stage that was killed leaves none.
    """
    context = Context(**json.loads(Path(sys.argv[1]).read_text()))
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _time_is_up)
    # Again and again, in case some library swallows the first.
    signal.setitimer(signal.ITIMER_REAL, max(0.1, context.left()), 1.0)
    try:
        try:
            stage(context)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (NotRunError, TimeIsUp) as e:
        context.record("end", status="not run", reason=str(e))
    except Exception as e:
        traceback.print_exc()
        context.record("end", status="failed", reason=first_line(e))
        sys.exit(1)
    else:
        context.record("end", status="done", reason="")


def _time_is_up(*_: object) -> None:
    raise TimeIsUp("time was up before its end")


def first_line(e: BaseException) -> str:
    """Return an exception as one line."""
    text = str(e).strip().splitlines()
    return f"{type(e).__name__}: {text[0][:300]}" if text else type(e).__name__


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the findings; a line that was cut off by a kill is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def run_logged(
    command: list[str], log: Path, seconds: float, env: dict[str, str] | None = None
) -> int | None:
    """Run a command in the repository, its output added to ``log``; None where time was up.

    A command whose time is up is ended together with the programs it started.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=env, process_group=0
        )
        try:
            return process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def shorten(log: Path) -> None:
    """Keep the beginning and the end of a log that has grown too long."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        data = log.read_bytes()
        half = LOG_BYTES // 2
        log.write_bytes(data[:half] + b"\n...\n" + data[-half:])
