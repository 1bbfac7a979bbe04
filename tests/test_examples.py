"""The examples run, in small, without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name, *args):
    command = [sys.executable, "-W", "error", EXAMPLES / name, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {p.name for p in EXAMPLES.glob("*.py")} == {
        "keras_style.py", "linear_regression.py", "music_or_speech.py",
    }  # fmt: skip


def test_keras_style():
    told = run("keras_style.py", "--epochs", 2, "--images", 40)
    assert "val_accuracy" in told
    assert "predicted" in told


def test_linear_regression_finds_the_coefficients():
    lines = run("linear_regression.py").splitlines()
    assert len(lines) == 5
    exact, *found = [
        np.fromstring(line.partition("[")[2].rstrip("]"), sep=" ") for line in lines[1:]
    ]
    assert max(np.abs(f - exact).max() for f in found) < 0.1
    assert np.abs(found[-1] - exact).max() < 0.005


def test_music_or_speech_synthetic():
    told = run("music_or_speech.py")
    assert "synthetic" in told
    assert float(told.split()[-1]) > 0.9


@pytest.mark.parametrize("damaged", [False, True])
def test_music_or_speech_from_a_folder(tmp_path, damaged):
    rng = np.random.default_rng(0)
    for name, scale in (("music", 0.01), ("speech", 0.3)):
        (tmp_path / name).mkdir()
        for i in range(16):
            samples = rng.normal(scale=scale, size=16000)
            soundfile.write(tmp_path / name / f"{i}.wav", samples, 16000)
    if damaged:
        (tmp_path / "music" / "0.wav").write_bytes(b"no sound")
    told = run("music_or_speech.py", tmp_path)
    assert ("left out" in told) == damaged
    assert float(told.split()[-1]) > 0.9
