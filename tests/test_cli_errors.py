"""What goes wrong on the command line: one clear line, exit status 1, nothing on disk is harmed."""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import TIMEOUT, command, complaint, environment, sounds, stapes
from stapes.cli._runs import run_folder

FAST = ("--model", "mlp", "--epochs", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("errors")
    sounds(root / "sounds", files=3)
    done = stapes(root, "train", "sounds", *FAST, "--valid", 0, "--out", "run")
    assert done.returncode == 0, done.stderr
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_no_data(place):
    assert complaint(stapes(place, "train", "nowhere")) == (
        "Error: nowhere: no such file or folder"
    )
    assert not (place / "runs/nowhere-1").exists()


def test_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no class folders" in complaint(stapes(tmp_path, "train", "empty"))
    assert not any((tmp_path / "runs").iterdir())


def test_one_class(tmp_path):
    sounds(tmp_path / "one", files=1)
    shutil.rmtree(tmp_path / "one/tone")
    shutil.rmtree(tmp_path / "one/burst")
    assert "one class only" in complaint(stapes(tmp_path, "train", "one"))


def test_class_without_a_readable_file(tmp_path):
    sounds(tmp_path / "set", files=2)
    for file in (tmp_path / "set/chirp").iterdir():
        file.write_bytes(b"")
    line = complaint(stapes(tmp_path, "train", "set"))
    assert "'chirp'" in line
    assert "empty (0 bytes)" in line


def test_too_few_files_to_split(tmp_path):
    sounds(tmp_path / "set", files=1)
    assert "--valid 0" in complaint(stapes(tmp_path, "train", "set"))


def test_no_cuda(place):
    line = complaint(stapes(place, "train", "sounds", "--device", "cuda"))
    assert line.startswith("Error: --device cuda cannot be used: ")
    line = complaint(stapes(place, "train", "sounds", "--precision", "bf16", "--out", "bf16"))
    assert "needs CUDA" in line
    assert not (place / "bf16").exists()


def test_finished_run_is_not_overwritten(place):
    before = files(place / "run")
    line = complaint(stapes(place, "train", "sounds", *FAST, "--out", "run"))
    assert "finished run" in line
    assert "--resume" in line
    assert "--out" in line
    assert files(place / "run") == before


def test_overwrite_says_so(tmp_path):
    sounds(tmp_path / "sounds", files=2)
    common = ("train", "sounds", "--model", "mlp", "--valid", 0, "--out", "run")
    assert stapes(tmp_path, *common, "--epochs", 2).returncode == 0
    assert stapes(tmp_path, *common, "--epochs", 1, "--overwrite").returncode == 0
    assert len((tmp_path / "run/history.csv").read_text().splitlines()) == 2


def test_run_in_use(place):
    before = files(place / "run")
    with run_folder(place / "run", ""):
        for more in ((), ("--resume",), ("--overwrite",)):
            line = complaint(stapes(place, "train", "sounds", "--out", "run", *more))
            assert "in use by process" in line
    assert files(place / "run") == before


def test_lock_of_a_dead_process_is_no_hindrance(place):
    (place / "run/.lock").write_text("1\n")
    assert "finished run" in complaint(stapes(place, "train", "sounds", "--out", "run"))


def test_resume_with_other_settings(place):
    line = complaint(stapes(place, "train", "--out", "run", "--resume", "--lr", 0.5))
    assert "--lr was 0.003 and is 0.5" in line
    line = complaint(stapes(place, "train", "--out", "nothing", "--resume"))
    assert "no run to resume" in line


def test_damaged_model(place, tmp_path):
    content = bytearray((place / "run/model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    (tmp_path / "text.safetensors").write_text("no model")
    sound = place / "sounds/tone/0.wav"
    for name in ("changed", "cut", "text", "missing"):
        line = complaint(stapes(tmp_path, "predict", f"{name}.safetensors", sound))
        assert f"{name}.safetensors" in line
    line = complaint(stapes(tmp_path, "predict", place / "run/checkpoint.safetensors", sound))
    assert "stapes.checkpoint" in line


def test_evaluate_on_other_classes(place, tmp_path):
    sounds(tmp_path / "other", files=1)
    (tmp_path / "other/tone").rename(tmp_path / "other/bell")
    line = complaint(stapes(tmp_path, "evaluate", place / "run", "other"))
    assert "bell" in line


def test_full_disk(place, tmp_path):
    """No file can grow beyond some kilobytes: saving fails and says so."""
    shutil.copytree(place / "cache", tmp_path / "cache")
    arguments = ("train", place / "sounds", *FAST, "--valid", 0, "--out", "run")
    done = subprocess.run(
        command(*arguments),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 1
    assert "cannot write the file: File too large" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert not list((tmp_path / "run").glob(".*"))


def test_traceback_only_where_asked_for(place):
    assert "Traceback" not in stapes(place, "train", "nowhere").stderr
    assert "Traceback" in stapes(place, "train", "nowhere", STAPES_DEBUG="1").stderr
