"""Running the command line as users do: a process, files, exit status, stdout and stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from stapes import audio
from stapes.cli._synthetic import KINDS, RATE, synthesise

CLASSES = ["burst", "chirp", "tone"]
_KINDS = ["noise burst", "chirp", "tone"]
TIMEOUT = 120  # seconds; a stuck process must not stop the tests


def sounds(root: Path, files: int = 6, seed: int = 0) -> Path:
    """Write ``files`` sounds of half a second for each of three classes."""
    samples, labels = synthesise(files, seed)
    for name, kind in zip(CLASSES, _KINDS, strict=True):
        (root / name).mkdir(parents=True)
        for i, sound in enumerate(samples[labels == KINDS.index(kind)]):
            audio.save(root / name / f"{i}.wav", sound, RATE)
    return root


def environment(cwd: Path) -> dict[str, str]:
    return {**os.environ, "STAPES_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}


def stapes(cwd: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**environment(cwd), **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def start(cwd: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a command; its output is read by ``communicate``."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(cwd),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stapes", *map(str, arguments)]


def answer(done: subprocess.CompletedProcess[str]):
    """Return the one JSON object that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def complaint(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """Return the one line with which a command failed; stdout must be empty."""
    assert done.returncode == status, (done.returncode, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def wait_for_epochs(run: Path, count: int) -> None:
    """Wait until a run has written so many epochs to its history."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        history = run / "history.csv"
        if history.exists() and len(history.read_text().splitlines()) > count:
            return
        time.sleep(0.002)
    raise TimeoutError(f"{run}: no {count} epochs within {TIMEOUT} s")
