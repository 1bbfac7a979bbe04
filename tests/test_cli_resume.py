"""Training runs that are killed or interrupted, and go on to the same bits."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import stapes as package
from command_line import TIMEOUT, complaint, sounds, stapes, start, wait_for_epochs

EPOCHS = 25
SETTINGS = ("--epochs", EPOCHS, "--batch-size", 4, "--seed", 3)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with sounds, and an unbroken run."""
    root = tmp_path_factory.mktemp("resume")
    sounds(root / "sounds", files=4)
    done = stapes(root, "train", "sounds", *SETTINGS, "--out", "whole")
    assert done.returncode == 0, done.stderr
    return root


def assert_same_bits(place: Path, run: str) -> None:
    for name in ("model.safetensors", "history.csv", "checkpoint.safetensors"):
        assert (place / run / name).read_bytes() == (place / "whole" / name).read_bytes(), name


def test_killed_twice(place):
    arguments = ("train", "sounds", *SETTINGS, "--out", "killed")
    for epochs, more in ((2, ()), (EPOCHS // 2, ("--resume",))):
        process = start(place, *arguments, *more)
        wait_for_epochs(place / "killed", epochs)
        process.kill()
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGKILL
        assert not (place / "killed/metrics.json").exists()
    assert "an unfinished run" in complaint(stapes(place, *arguments))
    done = stapes(place, "train", "--out", "killed", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_bits(place, "killed")


def test_killed_before_the_first_checkpoint(place):
    arguments = ("train", "sounds", *SETTINGS, "--out", "early", "--resume")
    process = start(place, *arguments)
    while not (place / "early/settings.json").exists():
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=TIMEOUT)
    done = stapes(place, *arguments)
    assert done.returncode == 0, done.stderr
    assert_same_bits(place, "early")


def test_interrupted(place):
    process = start(place, "train", "sounds", *SETTINGS, "--out", "stopped")
    wait_for_epochs(place / "stopped", 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("Interrupted at step")
    assert "stapes train --out stopped --resume" in last
    assert package.load(place / "stopped/model.safetensors").classes
    assert not (place / "stopped/.lock").exists()
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    done = stapes(elsewhere, "train", "--out", "../stopped", "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_bits(place, "stopped")


def test_finished_run_is_told_again(place):
    first, again = (stapes(place, "train", "--out", "whole", "--resume") for _ in range(2))
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert again.stdout == first.stdout


def test_other_data_is_refused(place):
    sounds(place / "more", files=4)
    process = start(place, "train", "more", *SETTINGS, "--out", "other")
    wait_for_epochs(place / "other", 1)
    process.kill()
    process.communicate(timeout=TIMEOUT)
    (place / "more/tone/0.wav").write_bytes((place / "more/chirp/0.wav").read_bytes())
    line = complaint(stapes(place, "train", "--out", "other", "--resume"))
    assert "the data is not what it was" in line
