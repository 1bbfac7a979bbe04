import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import stapes
from networks import Stream, assert_same_state, images, mixed, seed_like
from stapes import ModelError, audio, nn
from stapes._tensor_file import read_tensors, write_tensors


@pytest.fixture
def trained():
    x, y = images(40)
    model = mixed()
    model.compile("sgd")
    model.fit(Stream(x, y), progress=False)
    model.features, model.clip_seconds = audio.LogMel(n_mels=10), 1.5
    return model


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_what_is_loaded_is_what_was_saved(tmp_path, precision):
    x, y = images(40)
    model = mixed()
    model.compile(precision=precision)
    model.fit(Stream(x, y), progress=False)
    features = audio.Normalized(audio.LogMel(n_mels=10), np.arange(10.0), np.full(10, 0.1))
    model.features, model.clip_seconds = features, 1.5
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = stapes.load(path)
    assert isinstance(loaded, nn.Sequential)
    assert_same_state(loaded, model)
    assert loaded.config() == model.config()
    assert loaded.classes == ["a", "b", "c"]
    assert loaded.clip_seconds == 1.5
    assert loaded.features == features
    assert loaded.input_shape == (9, 10, 1)
    assert not loaded.training
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    loaded.summary()


def test_softmax_once_after_loading(tmp_path):
    x, y = images(40)
    for ends in ([], [nn.Softmax()]):
        model = nn.Sequential(*seed_like().layers, *ends)
        model.compile()
        model.fit(x, y, progress=False)
        model.save(tmp_path / "m")
        loaded = stapes.load(tmp_path / "m")
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
        loaded.save(tmp_path / "n")
        np.testing.assert_array_equal(stapes.load(tmp_path / "n").predict(x), model.predict(x))


def test_a_loaded_model_can_be_trained_on(tmp_path):
    x, y = images(40)
    model = seed_like()
    model.compile("sgd")
    model.fit(x, y, progress=False)
    model.save(tmp_path / "m")
    loaded = stapes.load(tmp_path / "m")
    for one in (model, loaded):
        one.compile("sgd")
        one.fit(x, y, progress=False, seed=3)
    assert_same_state(model, loaded)


def test_a_model_that_was_never_compiled(tmp_path):
    model = nn.Sequential(nn.Linear(4, 2))
    model.save(tmp_path / "m")
    loaded = stapes.load(tmp_path / "m")
    assert (loaded.classes, loaded.features, loaded.clip_seconds) == (None, None, None)
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    with pytest.raises(RuntimeError, match="not known"):
        nn.Sequential(nn.Linear(None, 2)).save(tmp_path / "m")
    assert_same_state(stapes.load(tmp_path / "m"), model)


def test_the_same_model_gives_the_same_bytes(tmp_path, trained):
    trained.save(tmp_path / "a")
    trained.save(tmp_path / "b")
    stapes.load(tmp_path / "a").save(tmp_path / "c")
    first = (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").read_bytes() == first
    assert (tmp_path / "c").read_bytes() == first


def test_the_format_is_safetensors(tmp_path, trained):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    tensors, state = load_file(path), trained.state_dict()
    assert set(tensors) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(tensors[name], value)
    with safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["stapes"])
    assert metadata["format"] == "stapes.model"
    assert metadata["version"] == 1
    assert metadata["classes"] == ["a", "b", "c"]
    assert metadata["architecture"] == trained.config()
    assert metadata["features"]["n_mels"] == 10
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert header % 8 == 0


def test_any_changed_byte_is_found(tmp_path):
    model = nn.Sequential(nn.Linear(2, 1))
    model.save(tmp_path / "m")
    content = bytearray((tmp_path / "m").read_bytes())
    broken = tmp_path / "broken"
    for i in range(len(content)):
        for bit in (0x01, 0x20, 0x80):
            content[i] ^= bit
            broken.write_bytes(content)
            with pytest.raises(ModelError, match="broken: "):
                stapes.load(broken)
            content[i] ^= bit
    broken.write_bytes(content)
    stapes.load(broken)


def test_a_file_cut_short_or_made_longer(tmp_path, trained):
    trained.save(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    broken = tmp_path / "broken"
    for length in [*range(0, len(content) - 1, 97), len(content) - 1]:
        broken.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"broken: is (cut short|damaged|no )"):
            stapes.load(broken)
    broken.write_bytes(content + b"\0")
    with pytest.raises(ModelError, match="is damaged"):
        stapes.load(broken)


def test_other_versions(tmp_path):
    tensors = {"0.weight": np.ones((1, 2), np.float32)}
    path = tmp_path / "m"
    write_tensors(path, tensors, {}, kind="stapes.model", version=2)
    with pytest.raises(
        ModelError, match="m: has format version 2, and this Stapes reads version 1"
    ):
        stapes.load(path)


def test_what_is_no_model(tmp_path):
    path = tmp_path / "m"
    for content in (b"", b"RIFF" + bytes(100), b"{}" * 50, bytes(8), bytes(9), b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="m: is"):
            stapes.load(path)
    write_tensors(path, {}, {}, kind="stapes.checkpoint", version=1)
    with pytest.raises(ModelError, match=r"is a stapes.checkpoint file, and a stapes.model file"):
        stapes.load(path)
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        stapes.load(tmp_path / "nothing_here")
    with pytest.raises(IsADirectoryError):
        stapes.load(tmp_path)


def test_safetensors_of_others_are_no_models(tmp_path):
    numpy_format = pytest.importorskip("safetensors.numpy")
    numpy_format.save_file({"w": np.ones(3)}, tmp_path / "m", {"digest": "0" * 64})
    with pytest.raises(ModelError, match="m: is"):
        stapes.load(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"type": "NoSuchLayer"}},
        {"architecture": {"type": "Linear", "in_features": 2, "out_features": 1}},
        {"architecture": 7},
        {"dtype": "int8"},
        {"dtype": "nonsense"},
        {"features": {"type": "NoSuchFeatures"}},
        {"features": 3},
        {"input_shape": [9]},
        {"input_shape": 3},
    ],
)
def test_files_that_are_whole_but_make_no_sense(tmp_path, change):
    path = tmp_path / "m"
    nn.Sequential(nn.Linear(2, 1)).save(path)
    tensors, metadata = read_tensors(path, kind="stapes.model", version=1)
    write_tensors(path, tensors, metadata | change, kind="stapes.model", version=1)
    with pytest.raises(ModelError, match="m: describes a model that cannot be built"):
        stapes.load(path)
    write_tensors(path, {"0.weight": np.ones(3)}, metadata, kind="stapes.model", version=1)
    with pytest.raises(ModelError, match=r"missing 0\.bias"):
        stapes.load(path)


def test_nothing_is_unpickled(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return print, ("boom",)

    path = tmp_path / "m"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError):
        stapes.load(path)


def test_a_full_disk_leaves_the_old_model(tmp_path, trained):
    path = tmp_path / "m"
    trained.save(path)
    before = path.read_bytes()
    code = """
        import resource, sys
        from stapes import nn
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        nn.Sequential(nn.Linear(1000, 1000)).save(sys.argv[1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cannot write the file: File too large" in done.stderr.splitlines()[-1]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_device_without_space(trained):
    with pytest.raises(OSError, match=r"No space left on device.*/dev/full"):
        trained.save("/dev/full")
    assert Path("/dev/full").is_char_device()


def test_stapes_has_only_what_it_has():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = stapes.nonsense


# Sound files.


def tone(path, hz, seconds=1.0, rate=8000):
    t = np.arange(round(seconds * rate)) / rate
    audio.save(path, (0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32), rate)
    return path


@pytest.fixture
def listener(tmp_path):
    """A model that tells 300 Hz from 2000 Hz, in clips of half a second."""
    features = audio.LogMel(sample_rate=8000, n_fft=256, win_length=256, hop_length=128, n_mels=16)
    rng = np.random.default_rng(0)
    t = np.arange(4000) / 8000
    y = np.arange(40) % 2
    hz = np.where(y, 2000, 300) * rng.uniform(0.9, 1.1, 40)
    clips = np.sin(2 * np.pi * hz[:, None] * t) * 0.5 + rng.normal(size=(40, 4000)) * 1e-3
    x = features(clips.astype(np.float32))[..., None]
    model = nn.Sequential(nn.AvgPool2d((8, 1)), nn.Flatten(), nn.Linear(None, 2))
    model.compile(stapes.optim.Adam(0.01))
    data = Stream((x / 50).astype(np.float32), y, ["low", "high"])
    data.features, data.clip_seconds = (
        audio.Normalized(features, np.zeros(16), np.full(16, 50)),
        0.5,
    )
    model.fit(data, epochs=20, progress=False)
    return model


def test_predict_files(tmp_path, listener):
    low, high = tone(tmp_path / "low.wav", 300), tone(tmp_path / "high.wav", 2000, rate=16000)
    bad, missing = tmp_path / "bad.wav", tmp_path / "missing.wav"
    bad.write_bytes(b"no sound")
    listener.save(tmp_path / "m")
    loaded = stapes.load(tmp_path / "m")
    results = loaded.predict_files([low, str(high), bad, missing])
    assert results == listener.predict_files([low, high, bad, missing])
    keys = ["path", "class", "probability", "probabilities", "error"]
    assert all(list(r) == keys for r in results)
    assert [r["class"] for r in results] == ["low", "high", None, None]
    assert [r["path"] for r in results] == [str(p) for p in (low, high, bad, missing)]
    for r in results[:2]:
        assert r["error"] is None
        assert r["probability"] == r["probabilities"][r["class"]] > 0.5
        assert sum(r["probabilities"].values()) == pytest.approx(1)
    for r in results[2:]:
        assert r["path"] in r["error"]
    json.dumps(results, allow_nan=False)


def test_windows_of_a_long_file(tmp_path, listener):
    t = np.arange(4000) / 8000
    parts = [0.5 * np.sin(2 * np.pi * hz * t) for hz in (300, 2000, 300)]
    audio.save(tmp_path / "long.wav", np.concatenate(parts).astype(np.float32), 8000)
    (result,) = listener.predict_files(tmp_path / "long.wav", windows=True)
    assert [(w["start"], w["end"], w["class"]) for w in result["windows"]] == [
        (0.0, 0.5, "low"),
        (0.5, 1.0, "high"),
        (1.0, 1.5, "low"),
    ]
    mean = np.mean([w["probabilities"]["low"] for w in result["windows"]])
    assert result["probabilities"]["low"] == pytest.approx(mean)
    short = tone(tmp_path / "short.wav", 300, seconds=0.2)
    (result,) = listener.predict_files([short], windows=True)
    assert [(w["start"], w["end"]) for w in result["windows"]] == [(0.0, 0.2)]
    (result,) = listener.predict_files([tmp_path / "none.wav"], windows=True)
    assert result["windows"] is None


def test_predict_files_needs_features_and_classes(tmp_path):
    with pytest.raises(ValueError, match="no features or class names"):
        seed_like().predict_files([])
