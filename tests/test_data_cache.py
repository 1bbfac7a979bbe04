"""The cache of features: when it is used, when not, and that nothing can spoil it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sounds import RATE, CountingLogMel, folder, gather, write
from stapes.audio import LogMel
from stapes.data import AudioFolder


@pytest.fixture
def root(tmp_path):
    return folder(tmp_path / "sounds")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def computed(root, cache, **keywords) -> tuple[int, np.ndarray]:
    """Return how many clips' features were computed, and all of them."""
    features = CountingLogMel()
    x, _ = gather(AudioFolder(root, features=features, cache_dir=cache, **keywords))
    return features.clips, x


def test_computed_once(root, cache):
    first, x = computed(root, cache)
    again, same = computed(root, cache)
    assert (first, again) == (8, 0)
    np.testing.assert_array_equal(x, same)
    assert {path.suffix for path in cache.iterdir()} == {".npy", ".json"}


def test_other_settings_are_computed_apart(root, cache):
    computed(root, cache)
    assert computed(root, cache, clip_seconds=0.2)[0] == 16
    assert computed(root, cache)[0] == 0
    other = LogMel(RATE, n_fft=256, win_length=200, hop_length=80, n_mels=15)
    assert AudioFolder(root, features=other, cache_dir=cache).features.bands == 15
    assert len(list(cache.glob("*.json"))) == 3


def test_changed_content_is_computed_again(root, cache):
    _, before = computed(root, cache)
    path = root / "a" / "1.wav"
    status = path.stat()
    write(path, seed=77)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time
    count, after = computed(root, cache)
    assert count == 8
    different = [i for i in range(8) if not np.array_equal(before[i], after[i])]
    assert different == [1]


def test_renamed_files_are_known(root, cache):
    _, before = computed(root, cache)
    root = root.rename(root.with_name("moved"))
    (root / "a" / "0.wav").rename(root / "a" / "9.wav")
    count, after = computed(root, cache)
    assert count == 0
    np.testing.assert_array_equal(after[[3, 0, 1, 2]], before[:4])


def test_normalized_features_share_the_entry(root, cache):
    features = CountingLogMel()
    data = AudioFolder(root, features=features, cache_dir=cache)
    normalized = data.normalized(*data.statistics())
    again = AudioFolder(root, features=normalized.features, cache_dir=cache)
    assert features.clips == 8
    np.testing.assert_array_equal(gather(again)[0], gather(normalized)[0])


def test_where_the_cache_is(root, tmp_path, monkeypatch):
    for name in ("STAPES_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    places = [tmp_path / ".cache" / "stapes"]
    AudioFolder(root, features=CountingLogMel())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    places.append(tmp_path / "xdg" / "stapes")
    AudioFolder(root, features=CountingLogMel())
    monkeypatch.setenv("STAPES_CACHE", str(tmp_path / "own"))
    places.append(tmp_path / "own")
    AudioFolder(root, features=CountingLogMel())
    assert all(list(place.glob("*.npy")) for place in places)


def test_a_cache_that_cannot_be_written_is_an_error(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        AudioFolder(root, features=CountingLogMel(), cache_dir=tmp_path / "file")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npy", lambda path: flip(path, -1)),
        (".npy", lambda path: flip(path, 5000)),
        (".npy", lambda path: flip(path, 0)),
        (".npy", lambda path: flip(path, 70)),
        (".npy", lambda path: cut(path, -100)),
        (".npy", lambda path: cut(path, 50)),
        (".npy", lambda path: cut(path, 0)),
        (".npy", Path.unlink),
        (".json", lambda path: flip(path, 3)),
        (".json", lambda path: flip(path, -8)),
        (".json", lambda path: cut(path, -1)),
        (".json", lambda path: cut(path, 0)),
        (".json", lambda path: path.write_bytes(b"\xff\x00\n{}")),
    ],
)
def test_a_damaged_entry_is_built_again(root, cache, suffix, damage):
    _, before = computed(root, cache)
    damage(next(cache.glob(f"*{suffix}")))
    with pytest.warns(UserWarning, match="damaged, computed again"):
        count, after = computed(root, cache)
    assert count == 8
    np.testing.assert_array_equal(after, before)
    assert computed(root, cache)[0] == 0


def test_an_entry_of_another_shape_is_built_again(root, cache):
    computed(root, cache)
    path = next(cache.glob("*.npy"))
    np.save(path, np.load(path)[..., :3])
    with pytest.warns(UserWarning, match="damaged"):
        assert computed(root, cache)[0] == 8


CHILD = """
import os, sys, time
from sounds import CountingLogMel, gather
from stapes.data import AudioFolder

class Slow(CountingLogMel):
    def __call__(self, samples):
        if self.clips >= {stop}:
            os.write(1, b"here\\n")  # at once: there are several threads
            time.sleep(600)
        time.sleep({pause})
        return super().__call__(samples)

features = Slow()
data = AudioFolder({root!r}, features=features, cache_dir={cache!r})
print(features.clips, float(gather(data)[0].astype("f8").sum()))
"""


def child(root, cache, *, stop=10**9, pause=0.0) -> subprocess.Popen:
    code = CHILD.format(root=str(root), cache=str(cache), stop=stop, pause=pause)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_two_processes_build_it_at_once(root, cache):
    both = [child(root, cache, pause=0.1) for _ in range(2)]
    told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    counts, sums = zip(*(out.split() for out, _ in told), strict=True)
    assert sorted(counts) == ["0", "8"]
    assert sums[0] == sums[1] == str(float(computed(root, cache)[1].astype("f8").sum()))
    assert {path.suffix for path in cache.iterdir()} == {".npy", ".json"}


def test_killed_midway_then_rebuilt(root, cache):
    process = child(root, cache, stop=5)
    try:
        assert process.stdout.readline() == "here\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not list(cache.glob("*.json"))
    assert list(cache.iterdir())  # what the killed one has left
    assert computed(root, cache)[0] == 8
    assert computed(root, cache)[0] == 0
    assert {path.suffix for path in cache.iterdir()} == {".npy", ".json"}


def test_killed_between_the_two_files(root, cache):
    _, before = computed(root, cache)
    next(cache.glob("*.json")).unlink()
    count, after = computed(root, cache)
    assert count == 8
    np.testing.assert_array_equal(after, before)


def test_an_error_midway_leaves_nothing(root, cache):
    class Failing(CountingLogMel):
        def __call__(self, samples):
            if self.clips >= 5:
                raise KeyboardInterrupt
            return super().__call__(samples)

    with pytest.raises(KeyboardInterrupt):
        AudioFolder(root, features=Failing(), cache_dir=cache)
    assert not list(cache.iterdir())


def test_any_number_of_threads_gives_the_same_entry(root, cache, threads):
    threads(1)
    computed(root, cache)
    threads(3)
    computed(root, cache.with_name("other"))
    files = [sorted(folder.iterdir()) for folder in (cache, cache.with_name("other"))]
    assert [a.read_bytes() for a in files[0]] == [b.read_bytes() for b in files[1]]


def test_the_index_is_json(root, cache):
    computed(root, cache)
    text = next(cache.glob("*.json")).read_text()
    assert len(json.loads(text.partition("\n")[2])["lengths"]) == 8


def test_batches_are_read_from_a_map(root, cache):
    data = AudioFolder(root, features=CountingLogMel(), cache_dir=cache)
    assert isinstance(data._array.base, np.memmap)
    assert not data._array.flags.writeable
    x, _ = next(data.batches(2))
    x[:] = 0
    assert gather(data)[0].any()


def test_features_that_do_not_tell_their_shape(root, cache):
    class Wrong(CountingLogMel):
        def __call__(self, samples):
            return super().__call__(samples)[:, :-2]

    with pytest.raises(RuntimeError, match=r"frames\(\) and bands tell"):
        AudioFolder(root, features=Wrong(), cache_dir=cache)


def test_two_threads_build_it_at_once(root, cache):
    features = CountingLogMel()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(AudioFolder, root, features=features, cache_dir=cache) for _ in "ab"]
        first, second = (gather(job.result())[0] for job in jobs)
    assert features.clips == 8
    np.testing.assert_array_equal(first, second)
