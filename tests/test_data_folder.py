"""AudioFolder and Manifest: what is found, what is refused, what is told."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

import stapes
from sounds import RATE, CountingLogMel, folder, gather, noise, write
from stapes.audio import LogMel
from stapes.data import AudioFolder, Manifest, windows

FEATURES = CountingLogMel()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sounds"


def reasons(data) -> dict[str, str]:
    return {Path(skip["path"]).name: skip["reason"] for skip in data.skipped}


def test_labels_groups_and_values(root):
    folder(root, "ba", files=2)
    data = AudioFolder(root, features=FEATURES)
    assert data.classes == ["a", "b"]
    assert len(data) == 4
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.groups == ["a/0.wav", "a/1.wav", "b/0.wav", "b/1.wav"]
    assert data.paths == [str(root / group) for group in data.groups]
    assert data.clip_seconds == 0.25
    assert data.skipped == []
    x, y = gather(data)
    assert x.shape == (4, FEATURES.frames(2000), 16, 1)
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    for path, row in zip(data.paths, x, strict=True):
        samples, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_array_equal(row[..., 0], FEATURES(samples[np.newaxis])[0])


def test_long_files_give_windows_and_short_ones_are_padded(root):
    write(root / "a" / "long.wav", 1.1)
    write(root / "a" / "short.wav", 0.1, seed=1)
    data = AudioFolder(root, features=FEATURES, clip_seconds=0.5)
    assert data.groups == ["a/long.wav"] * 3 + ["a/short.wav"]
    np.testing.assert_allclose(data.starts, [0, 0.5, 0.6, 0])
    x, _ = gather(data)
    for name, rows in (("long", x[:3]), ("short", x[3:])):
        samples, _ = soundfile.read(root / "a" / f"{name}.wav", dtype="float32")
        np.testing.assert_array_equal(rows[..., 0], FEATURES(windows(samples, 4000)))


def test_clip_seconds_is_the_95th_percentile_at_most_10(root):
    lengths = [0.1, 0.2, 0.2, 0.3, 0.9]
    for i, seconds in enumerate(lengths):
        write(root / "a" / f"{i}.wav", seconds, seed=i)
    data = AudioFolder(root, features=FEATURES)
    assert abs(data.clip_seconds - np.percentile(lengths, 95)) < 1 / RATE
    write(root / "b" / "long.wav", 21, rate=400)
    write(root / "b" / "long2.wav", 30, rate=400)
    write(root / "b" / "long3.wav", 25, rate=400)
    assert AudioFolder(root, features=FEATURES).clip_seconds == 10


def test_other_rates_and_channels(root):
    write(root / "a" / "fast.wav", 0.5, rate=44100)
    (root / "b").mkdir()
    soundfile.write(root / "b" / "stereo.flac", np.stack([noise(0.5), noise(0.5, 1)], 1), RATE)
    data = AudioFolder(root, features=FEATURES)
    assert len(data) == 2
    assert data.clip_seconds == 0.5


def test_what_is_no_sound_is_told_or_passed_over(root):
    folder(root, "a", files=1)
    write(root / "a" / "deep" / "er" / "1.flac", seed=7)
    for name in (".hidden.wav", "notes.txt", "table.csv", "LICENSE", "README.md", "cover.jpg"):
        (root / "a" / name).write_text("x")
    (root / "a" / "song.xyz").write_text("x")
    (root / "a" / "noending").write_text("x")
    (root / "a" / "deep" / "up").symlink_to(root / "a")
    (root / ".git").mkdir()
    (root / "loose.wav").write_bytes(b"")
    data = AudioFolder(root, features=FEATURES)
    assert data.groups == ["a/0.wav", "a/deep/er/1.flac"]
    assert data.classes == ["a"]
    unknown = "not a known kind of sound file"
    assert reasons(data) == {"song.xyz": unknown, "noending": unknown}


def test_bad_files_are_skipped_with_a_reason(root):
    good = folder(root, "a", files=2) / "a"
    (good / "zero.wav").write_bytes(b"")
    (good / "text.wav").write_text("this is no sound\n" * 100)
    (good / "cut.flac").write_bytes(write(root / "a" / "whole.flac", 1.0, 9).read_bytes()[:3000])
    (good / "header.wav").write_bytes(write(root / "a" / "whole.wav", 0.2, 8).read_bytes()[:30])
    soundfile.write(good / "nosamples.wav", np.zeros(0), RATE)
    soundfile.write(good / "nan.wav", np.array([0.1, np.nan] * 1000), RATE, subtype="FLOAT")
    soundfile.write(good / "huge.wav", np.full(2000, 1e10), RATE, subtype="FLOAT")
    (good / "gone.wav").symlink_to(good / "nowhere.wav")
    (good / "folder.wav").mkdir()
    data = AudioFolder(root, features=FEATURES, clip_seconds=0.25)
    assert set(data.groups) == {"a/0.wav", "a/1.wav", "a/whole.flac", "a/whole.wav"}
    told = reasons(data)
    bad = {"zero.wav", "text.wav", "cut.flac", "header.wav", "nosamples.wav", "nan.wav", "huge.wav"}
    assert set(told) == bad | {"gone.wav"}
    assert all(told.values())
    assert "empty" in told["zero.wav"]
    assert told["gone.wav"] == "no such file"
    again = AudioFolder(root, features=FEATURES, clip_seconds=0.25)
    assert again.skipped == data.skipped


def test_a_class_without_a_readable_file_is_an_error(root):
    folder(root, "a")
    (root / "b").mkdir()
    with pytest.raises(ValueError, match=r"class 'b' has no readable sound file$"):
        AudioFolder(root, features=FEATURES)
    (root / "b" / "bad.wav").write_text("no")
    with pytest.raises(ValueError, match=r"(?s)class 'b' has no readable.*bad\.wav: "):
        AudioFolder(root, features=FEATURES)


def test_roots_that_are_none(root, tmp_path):
    with pytest.raises(FileNotFoundError):
        AudioFolder(root, features=FEATURES)
    file = write(tmp_path / "file.wav")
    with pytest.raises(NotADirectoryError):
        AudioFolder(file, features=FEATURES)
    root.mkdir()
    with pytest.raises(ValueError, match="no class folders"):
        AudioFolder(root, features=FEATURES)
    write(root / "x.wav")
    with pytest.raises(ValueError, match="1 sound files lie directly in it"):
        AudioFolder(root, features=FEATURES)


@contextmanager
def nobody():
    """Run as a user without rights, since the superuser may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        if not os.access(stapes.__file__, os.R_OK, effective_ids=True):
            pytest.skip("stapes is installed where only root may read")
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o777)
        folder(root / "s", "ab", files=2)
        (root / "s" / "a" / "shut").mkdir(mode=0)
        (root / "s" / "b" / "1.wav").chmod(0)
        with nobody():
            data = AudioFolder(root / "s", features=FEATURES, cache_dir=root / "cache")
        assert reasons(data) == {
            "shut": "cannot be listed: Permission denied",
            "1.wav": "Permission denied",
        }
        (root / "s").chmod(0)
        with nobody(), pytest.raises(PermissionError):
            AudioFolder(root / "s", features=FEATURES, cache_dir=root / "cache")
        (root / "s").chmod(0o755)


def test_classes_fix_names_and_order(root):
    folder(root, "abc", files=1)
    data = AudioFolder(root, features=FEATURES, classes=["c", "a", "b"])
    assert data.classes == ["c", "a", "b"]
    assert data.labels.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"not among the classes.*\['c'\]"):
        AudioFolder(root, features=FEATURES, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"no folder for the classes \['d'\]"):
        AudioFolder(root, features=FEATURES, classes=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="different names"):
        AudioFolder(root, features=FEATURES, classes=["a", "b", "c", "a"])
    some = AudioFolder(root, features=FEATURES, classes=["d", "a", "b", "c"], missing_ok=True)
    assert some.labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_clip_seconds_must_be_positive(root, seconds):
    folder(root, "a", files=1)
    with pytest.raises(ValueError, match="clip_seconds must be a positive number"):
        AudioFolder(root, features=FEATURES, clip_seconds=seconds)


def test_clips_too_short_for_the_features(root):
    folder(root, "a", files=1)
    with pytest.raises(ValueError, match="needs at least"):
        AudioFolder(root, features=LogMel(RATE, preset="kaldi"), clip_seconds=0.01)


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    root.mkdir(exist_ok=True)
    path = root / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_manifest(root):
    folder(root, "ab", files=2)
    write(root / "long.wav", 1.0, seed=5)
    path = table(
        root,
        "\ufeffpath,label,split,group,start,end\n"
        "a/0.wav,Ä,train,g1,,\nlong.wav,b,train,g2,0.5,0.75\n\nlong.wav,Ä,train,g2,0,0.25\n"
        'b/1.wav,b,train,,,\n"b/0.wav",b,test,g1,,\n',
    )
    data = Manifest(path, features=FEATURES, filter={"split": "train"})
    assert data.classes == ["b", "Ä"]
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert data.groups == ["g1", "g2", "g2", "b/1.wav"]
    np.testing.assert_allclose(data.starts, [0, 0.5, 0, 0])
    x, _ = gather(data)
    samples, _ = soundfile.read(root / "long.wav", dtype="float32")
    np.testing.assert_array_equal(x[1, ..., 0], FEATURES(samples[np.newaxis, 4000:6000])[0])
    both = Manifest(path, features=FEATURES, filter={"split": ["train", "test"]}, group=None)
    assert len(both) == 5
    assert both.groups[0] == "a/0.wav"


def test_features_must_be_features(root):
    folder(root, "ab")
    path = table(root, "path,label\na/0.wav,a\nb/0.wav,b\n")
    with pytest.raises(TypeError, match=r"AudioFolder: features must be .* got None"):
        AudioFolder(root, features=None)
    with pytest.raises(TypeError, match=r"Manifest: features must be .* got 'logmel'"):
        Manifest(csv=path, features="logmel")
    assert len(Manifest(csv=path, features=FEATURES)) == 2


def test_manifest_parts_beyond_the_file(root):
    write(root / "a.wav", 1.0)
    path = table(root, "path,label,start,end\na.wav,a,0.5,9\na.wav,a,2,3\nno.wav,a,,\n")
    data = Manifest(path, features=FEATURES)
    assert data.clip_seconds == 0.5
    assert len(data) == 1
    assert reasons(data) == {
        "a.wav": "nothing at 2 s: the file holds 1.000 s",
        "no.wav": "no such file",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("path,label\n", "no rows below"),
        ("path\nx.wav\n", r"no column label; found \['path'\]"),
        ("path,label,label\nx.wav,a,b\n", "line 1: a column is there twice"),
        ("path,label\nx.wav,a\nx.wav\n", "line 3: 1 cells, but 2 columns"),
        ("path,label\n\nx.wav,a,b\n", "line 3: 3 cells, but 2 columns"),
        ("path,label\n,a\n", "line 2: path is empty"),
        ("path,label\nx.wav, \n", "line 2: label is empty"),
        ("path,label,start\nx.wav,a,soon\n", "line 2: start must be seconds"),
        ("path,label,start\nx.wav,a,-1\n", "line 2: start must be seconds"),
        ("path,label,end\nx.wav,a,nan\n", "line 2: end must be seconds"),
        ("path,label,end\nx.wav,a,inf\n", "line 2: end must be seconds"),
        ("path,label,start,end\nx.wav,a,2,2\n", r"line 2: end \(2\) must be after start"),
        ('path,label\nx.wav,a\n"x.wav,a\n', "line 3: "),
        ("path,label\nx.wav,a\n", "class 'a' has no readable sound file"),
    ],
)
def test_manifest_errors(root, text, message):
    with pytest.raises(ValueError, match=message):
        Manifest(table(root, text), features=FEATURES)


def test_manifest_errors_of_arguments(root):
    folder(root, "a", files=1)
    path = table(root, "path,label,split\na/0.wav,a,train\n")
    with pytest.raises(ValueError, match=r"no rows with .*'dev'.*\['train'\]"):
        Manifest(path, features=FEATURES, filter={"split": "dev"})
    with pytest.raises(ValueError, match="no column speaker"):
        Manifest(path, features=FEATURES, group="speaker")
    with pytest.raises(ValueError, match="no column fold"):
        Manifest(path, features=FEATURES, filter={"fold": "1"})
    with pytest.raises(ValueError, match=r"not among the classes \['b'\]: \['a'\]"):
        Manifest(path, features=FEATURES, classes=["b"])
    with pytest.raises(FileNotFoundError):
        Manifest(root / "none.csv", features=FEATURES)
    with pytest.raises(IsADirectoryError):
        Manifest(root, features=FEATURES)
    path.write_bytes("path,label\na/0.wav,a\nx.wav,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 3: not UTF-8"):
        Manifest(path, features=FEATURES)
