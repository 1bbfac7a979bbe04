"""``stapes train``, ``evaluate``, ``predict`` and ``info`` as processes, on sound files."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import stapes as package
from command_line import CLASSES, answer, complaint, sounds, stapes
from stapes.cli import main

TRAIN_KEYS = {
    *("model", "classes", "epochs", "loss", "accuracy", "val_loss", "val_accuracy"),
    *("val_balanced_accuracy", "seconds", "skipped"),
}
FAST = ("--model", "mlp", "--epochs", 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with sounds, one of them broken, and a run trained on them."""
    root = tmp_path_factory.mktemp("cli")
    sounds(root / "sounds")
    (root / "sounds/tone/broken.wav").write_bytes(b"RIFF no sound")
    return root


@pytest.fixture(scope="module")
def trained(place):
    return answer(stapes(place, "train", "sounds", "--epochs", 12, "--out", "run", "--json"))


def test_train_tells_what_it_did(place, trained):
    assert set(trained) == TRAIN_KEYS
    assert trained["classes"] == CLASSES
    assert trained["epochs"] == 12
    assert trained["accuracy"] > 0.5
    assert 0 <= trained["val_balanced_accuracy"] <= 1
    (skipped,) = trained["skipped"]
    assert skipped["path"].endswith("broken.wav")
    assert skipped["reason"]


def test_run_folder_holds_everything(place, trained):
    run = place / "run"
    names = {path.name for path in run.iterdir()}
    assert {"model.safetensors", "checkpoint.safetensors", "history.csv", "metrics.json"} <= names
    assert ".lock" not in names
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["skipped"] == trained["skipped"]
    assert metrics["settings"]["clip_seconds"] == 0.5
    assert metrics["settings"]["epochs"] == 12
    assert metrics["versions"]["stapes"] == package.__version__
    assert len((run / "history.csv").read_text().splitlines()) == 13
    assert trained["val_loss"] == metrics["val_loss"]


def test_pictures(place, trained):
    pytest.importorskip("matplotlib")
    for name in ("confusion.png", "curves.png"):
        assert (place / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_model_carries_its_features(place, trained):
    model = package.load(place / trained["model"])
    assert model.classes == CLASSES
    assert model.features.config()["type"] == "Normalized"
    assert model.clip_seconds == 0.5


def test_evaluate(place, trained):
    found = answer(stapes(place, "evaluate", "run/model.safetensors", "sounds", "--json"))
    assert found["classes"] == CLASSES
    confusion = found["confusion"]
    assert [sum(row) for row in confusion] == [6, 6, 6]
    right = sum(confusion[i][i] for i in range(3))
    assert found["accuracy"] == pytest.approx(right / 18)
    assert found["balanced_accuracy"] == pytest.approx(right / 18)
    assert found["accuracy"] > 0.5
    assert found["loss"] > 0


def test_evaluate_for_people_shows_the_matrix(place, trained):
    done = stapes(place, "evaluate", "run", "sounds")
    assert done.returncode == 0
    assert "balanced accuracy" in done.stdout
    assert "broken.wav" in done.stdout
    assert all(name in done.stdout for name in CLASSES)


def test_predict(place, trained):
    files = ["sounds/tone/0.wav", "sounds/burst/1.wav"]
    found = answer(stapes(place, "predict", "run/model.safetensors", *files, "--json"))["files"]
    assert [entry["path"] for entry in found] == files
    for entry in found:
        assert entry["error"] is None
        assert list(entry["probabilities"]) == CLASSES
        assert entry["probability"] == max(entry["probabilities"].values())
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert entry["probabilities"][entry["class"]] == entry["probability"]


def test_predict_goes_on_after_a_bad_file(place, trained):
    files = ["sounds/tone/broken.wav", "missing.wav", "sounds/chirp/0.wav"]
    done = stapes(place, "predict", "run", *files, "--json")
    assert done.returncode == 1
    first, second, third = json.loads(done.stdout)["files"]
    for entry in (first, second):
        assert entry["class"] is entry["probability"] is entry["probabilities"] is None
    assert second["error"] == "missing.wav: no such file"
    assert third["error"] is None
    done = stapes(place, "predict", "run", *files)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("sounds/chirp/0.wav")
    assert "missing.wav: no such file" in done.stderr


def test_predict_windows(place, trained):
    samples, rate = package.audio.load(place / "sounds/tone/0.wav")
    long = place / "long.wav"
    package.audio.save(long, samples.repeat(3), rate)
    found = answer(stapes(place, "predict", "run", "long.wav", "--windows", "--json"))
    spans = [(w["start"], w["end"]) for w in found["files"][0]["windows"]]
    assert spans == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)]
    done = stapes(place, "predict", "run", "long.wav", "--windows")
    assert len(done.stdout.splitlines()) == 4


def test_split_folders_and_a_class_missing_from_the_test(tmp_path):
    sounds(tmp_path / "set/train", files=3)
    sounds(tmp_path / "set/valid", files=2, seed=1)
    sounds(tmp_path / "set/test", files=2, seed=2)
    shutil.rmtree(tmp_path / "set/test/chirp")
    answer(stapes(tmp_path, "train", "set", *FAST, "--json"))
    metrics = json.loads((tmp_path / "runs/set-1/metrics.json").read_text())
    assert [c["train_clips"] for c in metrics["per_class"]] == [3, 3, 3]
    assert [c["valid_clips"] for c in metrics["per_class"]] == [2, 2, 2]
    found = answer(stapes(tmp_path, "evaluate", "runs/set-1", "set", "--json"))
    assert [sum(row) for row in found["confusion"]] == [2, 0, 2]
    assert "no valid" not in complaint(stapes(tmp_path, "evaluate", "runs/none", "set"))


def test_manifest_with_a_split(tmp_path):
    sounds(tmp_path / "audio", files=4)
    rows = ["path,label,split"]
    for name in CLASSES:
        for i in range(4):
            part = ("train", "train", "valid", "test")[i]
            rows.append(f"audio/{name}/{i}.wav,{name},{part}")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    done = stapes(tmp_path, "train", "set.csv", *FAST, "--features", "mfcc", "--json")
    assert answer(done)["model"] == "runs/set-1/model.safetensors"
    metrics = json.loads((tmp_path / "runs/set-1/metrics.json").read_text())
    assert [c["train_clips"] for c in metrics["per_class"]] == [2, 2, 2]
    assert [c["valid_clips"] for c in metrics["per_class"]] == [1, 1, 1]
    found = answer(stapes(tmp_path, "evaluate", "runs/set-1", "set.csv", "--json"))
    assert [sum(row) for row in found["confusion"]] == [1, 1, 1]


def test_train_on_everything_for_people(place):
    done = stapes(place, "train", "sounds", *FAST, "--valid", 0, "--out", "all")
    assert done.returncode == 0
    assert "all/model.safetensors" in done.stdout
    assert "nothing to validate on" in done.stdout
    assert "broken.wav" in done.stdout
    assert "epoch 2/2" in done.stderr
    metrics = json.loads((place / "all/metrics.json").read_text())
    assert metrics["val_loss"] is metrics["val_balanced_accuracy"] is None


def test_validation_data_of_its_own(tmp_path):
    sounds(tmp_path / "a", files=2)
    sounds(tmp_path / "b", files=1, seed=1)
    shutil.rmtree(tmp_path / "b/chirp")
    settings = ("--preset", "kaldi", "--features", "mfcc", "--precision", "fp64", "--seed", 5)
    found = answer(stapes(tmp_path, "train", "a", "--valid", "b", *FAST, *settings, "--json"))
    metrics = json.loads((tmp_path / "runs/a-1/metrics.json").read_text())
    assert [c["train_clips"] for c in metrics["per_class"]] == [2, 2, 2]
    assert [c["valid_clips"] for c in metrics["per_class"]] == [1, 0, 1]
    assert [c["recall"] is None for c in metrics["per_class"]] == [False, True, False]
    model = package.load(tmp_path / found["model"])
    assert model.dtype == "float64"
    assert model.features.config()["features"]["preset"] == "kaldi"


def test_runs_are_numbered(tmp_path):
    sounds(tmp_path / "my set", files=2)
    for number in (1, 2):
        found = answer(stapes(tmp_path, "train", "my set", *FAST, "--valid", 0, "--json"))
        assert found["model"] == f"runs/my set-{number}/model.safetensors"


def test_info(tmp_path):
    found = answer(stapes(tmp_path, "info", "--json"))
    assert set(found) == {"version", "isa", "threads", "cuda", "cuda_reason"}
    assert found["version"] == package.__version__
    assert found["threads"] == 1
    assert found["cuda"] or found["cuda_reason"]
    done = stapes(tmp_path, "info")
    assert done.returncode == 0
    assert found["isa"] in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train"],
        ["train", "sounds", "--nonsense"],
        ["train", "sounds", "--epochs", "0"],
        ["train", "sounds", "--lr", "-1"],
        ["train", "sounds", "--clip-seconds", "nan"],
        ["train", "sounds", "--valid", "1.5"],
        ["train", "sounds", "--model", "other"],
        ["train", "sounds", "--resume"],
        ["predict", "run"],
    ],
)
def test_wrong_usage(place, arguments):
    done = stapes(place, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_help_names_every_command(tmp_path):
    done = stapes(tmp_path, "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("train", "evaluate", "predict", "demo", "info"))
    done = stapes(tmp_path, "train", "--help")
    assert "--clip-seconds" in done.stdout
    examples = [line.split()[:2] for line in done.stdout.splitlines() if "  stapes train" in line]
    assert examples == [["stapes", "train"]] * 4, "a line each"
    assert "95th percentile" in " ".join(done.stdout.split())


def test_ctrl_c_while_modules_are_read(monkeypatch):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "stapes.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "stapes.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130


def test_entry_point_is_main():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["stapes"] == "stapes.cli:main"
