"""Windows, splits, batches and statistics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sounds import CountingLogMel, folder, gather, write
from stapes.data import AudioFolder, Manifest, window_starts, windows
from stapes.data._split import split_mask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five files in each of three classes, some of them of several windows: 21 samples."""
    root = folder(tmp_path_factory.mktemp("data") / "sounds", "abc", files=5, seconds=0.2)
    write(root / "a" / "long.wav", 0.9, seed=50)
    write(root / "b" / "short.wav", 0.05, seed=51)
    cache = root.parent / "cache"
    return AudioFolder(root, features=CountingLogMel(), clip_seconds=0.2, cache_dir=cache)


@given(n=st.integers(1, 5000), clip=st.integers(1, 700))
def test_windows_cover_the_clip(n, clip):
    samples = np.arange(1, n + 1, dtype=np.float32)
    cut = windows(samples, clip)
    assert cut.shape == (len(window_starts(n, clip)), clip)
    assert cut.dtype == np.float32
    assert cut.flags.c_contiguous
    if n <= clip:
        np.testing.assert_array_equal(cut[0], np.pad(samples, (0, clip - n)))
    else:
        starts = window_starts(n, clip)
        assert starts[0] == 0
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts) <= clip).all()
        np.testing.assert_array_equal(cut, samples[starts[:, np.newaxis] + np.arange(clip)])
        assert 0 <= n - (starts[-1] + clip) <= 0.1 * clip


@pytest.mark.parametrize(
    ("n", "clip", "starts"),
    [(10, 10, [0]), (3, 10, [0]), (20, 10, [0, 10]), (25, 10, [0, 10, 15]), (21, 10, [0, 10]),
     (22, 10, [0, 10, 12]), (11, 10, [0])],
)  # fmt: skip
def test_window_starts(n, clip, starts):
    assert window_starts(n, clip).tolist() == starts


def test_windows_errors():
    with pytest.raises(ValueError, match="at least one sample"):
        windows(np.zeros(0), 10)
    with pytest.raises(ValueError, match="at least one sample"):
        windows(np.zeros(5), 0)
    with pytest.raises(ValueError, match="one axis"):
        windows(np.zeros((2, 5)), 5)


@st.composite
def sets(draw):
    """Draw labels, groups and files; a file lies in one group and has one label."""
    classes = draw(st.integers(1, 4))
    files = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, 5),
                                    st.integers(1, 3)), min_size=1, max_size=40))  # fmt: skip
    files += [(c, draw(st.integers(0, 5)), 1) for c in range(classes) for _ in range(2)]
    labels, groups, names = [], [], []
    for number, (label, group, windows_) in enumerate(files):
        labels += [label] * windows_
        groups += [f"g{group}"] * windows_
        names += [f"f{number}"] * windows_
    return np.array(labels), groups, names, [f"c{c}" for c in range(classes)]


@given(sets(), st.floats(0.05, 0.95), st.integers(0, 99), st.booleans())
def test_split_properties(drawn, fraction, seed, by_group):
    labels, groups, files, classes = drawn
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mask = split_mask(
            labels, groups, files, classes, fraction=fraction, seed=seed, by_group=by_group
        )
    sides = [set(labels[mask]), set(labels[~mask])]
    assert sides[0] == sides[1] == set(labels)

    def straddling(names):
        names = np.array(names)
        return set(names[mask]) & set(names[~mask])

    assert not straddling(files)
    loose = any("cannot be split by group" in str(warning.message) for warning in told)
    if by_group and not loose:
        assert not straddling(groups)
    if not by_group:
        assert not told
        largest = max(files.count(name) for name in set(files))
        for c in set(labels):
            assert abs(mask[labels == c].sum() - fraction * (labels == c).sum()) <= largest


@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.floats(0.05, 0.95))
def test_split_of_single_files_is_exact(sizes, fraction):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = [str(i) for i in range(len(labels))]
    mask = split_mask(
        labels, names, names, [*map(str, sizes)], fraction=fraction, seed=0, by_group=False
    )
    for c, size in enumerate(sizes):
        wanted = np.clip(fraction * size, 1, size - 1)
        assert abs(mask[labels == c].sum() - wanted) <= 0.5 + 1e-9


def test_split_depends_on_the_seed_alone():
    labels = np.arange(60) % 3
    names = [str(i) for i in range(60)]

    def run(seed):
        return split_mask(
            labels, names, names, ["a", "b", "c"], fraction=0.3, seed=seed, by_group=True
        ).tolist()

    assert run(1) == run(1) == run(np.random.SeedSequence(1))
    assert len({tuple(run(seed)) for seed in range(5)}) == 5


def test_split_keeps_groups_and_classes():
    # Class 2 is in groups x and y only: one of them must be on each side.
    groups = ["x"] * 10 + ["y"] * 10 + ["z"] * 40
    labels = np.array([0, 2] * 10 + [0, 1] * 20)
    labels[:2] = labels[10:12] = 1
    files = [str(i) for i in range(60)]
    mask = split_mask(labels, groups, files, ["a", "b", "c"], fraction=0.2, seed=3, by_group=True)
    assert sorted({(g, bool(m)) for g, m in zip(groups, mask, strict=True)}) in (
        [("x", False), ("y", True), ("z", False)],
        [("x", True), ("y", False), ("z", False)],
    )


def test_split_falls_back_to_files_with_a_warning():
    labels = np.repeat([0, 1], 20)
    files = [str(i) for i in range(40)]
    groups = ["only"] * 20 + [f"g{i // 2}" for i in range(20)]
    with pytest.warns(UserWarning, match="class 'a' cannot be split by group"):
        mask = split_mask(labels, groups, files, ["a", "b"], fraction=0.2, seed=0, by_group=True)
    assert [mask[:20].sum(), mask[20:].sum()] == [4, 4]
    assert all(mask[20::2] == mask[21::2])
    with pytest.warns(UserWarning, match="the classes cannot be split by group"):
        split_mask(labels, ["g"] * 40, files, ["a", "b"], fraction=0.2, seed=0, by_group=True)


def test_split_tells_that_groups_are_large():
    labels, files = np.arange(40) % 2, [str(i) for i in range(40)]
    groups = ["g1"] * 20 + ["g2"] * 20
    with pytest.warns(UserWarning, match="has 50% of the samples, not 15%"):
        split_mask(labels, groups, files, ["a", "b"], fraction=0.15, seed=0, by_group=True)


def test_split_errors(data):
    for fraction in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
            data.split(fraction, seed=0)
    alone = np.array([0, 0, 1])
    with pytest.raises(ValueError, match="class 'b' cannot be on both sides"):
        split_mask(
            alone, ["x", "y", "z"], ["x", "y", "z"], ["a", "b"], fraction=0.5, seed=0,
            by_group=False,
        )  # fmt: skip


def test_split_of_data(data):
    train, valid = data.split(0.3, seed=1)
    assert len(train) + len(valid) == len(data) == 21
    assert not set(train.paths) & set(valid.paths)
    assert set(train.labels) == set(valid.labels) == {0, 1, 2}
    assert valid.classes == data.classes
    x, y = gather(data)
    for part in (train, valid):
        got_x, got_y = gather(part)
        places = [list(zip(data.paths, data.starts, strict=True)).index(key)
                  for key in zip(part.paths, part.starts, strict=True)]  # fmt: skip
        np.testing.assert_array_equal(got_x, x[places])
        np.testing.assert_array_equal(got_y, y[places])


def test_copies_of_a_file_stay_together(tmp_path):
    root = folder(tmp_path / "s", "ab", files=6)
    for name in "ab":
        for i in range(6):
            (root / name / f"copy{i}.wav").write_bytes((root / name / f"{i}.wav").read_bytes())
    data = AudioFolder(root, features=CountingLogMel(), cache_dir=tmp_path / "cache")
    for seed in range(5):
        train, valid = data.split(0.3, seed=seed)
        names = [{p.replace("copy", "") for p in part.paths} for part in (train, valid)]
        assert not names[0] & names[1]


def test_groups_of_a_manifest_stay_together(tmp_path):
    root = folder(tmp_path / "s", "ab", files=8)
    rows = [f"{c}/{i}.wav,{c},speaker{i % 4}" for c in "ab" for i in range(8)]
    (root / "t.csv").write_text("\n".join(["path,label,speaker", *rows]))
    data = Manifest(
        root / "t.csv", features=CountingLogMel(), group="speaker", cache_dir=tmp_path / "cache"
    )
    train, valid = data.split(0.25, seed=0)
    assert len(valid) == 4
    assert not set(train.groups) & set(valid.groups)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("size", [1, 4, 21, 50])
def test_start_leaves_batches_out(data, shuffle, size):
    whole = list(data.batches(size, shuffle=shuffle, seed=[3, 1]))
    assert [len(y) for _, y in whole] == [size] * (21 // size) + [21 % size] * (21 % size > 0)
    for start in range(len(whole) + 2):
        rest = list(data.batches(size, shuffle=shuffle, seed=[3, 1], start=start))
        assert len(rest) == max(0, len(whole) - start)
        for (x, y), (same_x, same_y) in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(x, same_x)
            np.testing.assert_array_equal(y, same_y)


def test_shuffled_batches_are_a_permutation(data):
    x, y = gather(data)
    orders = []
    for seed in (0, 1):
        got_x, got_y = gather(data, shuffle=True, seed=seed)
        assert sorted(row.tobytes() for row in got_x) == sorted(row.tobytes() for row in x)
        assert np.array_equal(np.bincount(got_y), np.bincount(y))
        orders.append(got_x.tobytes())
    assert orders[0] != orders[1]
    assert orders[0] == gather(data, shuffle=True, seed=np.random.SeedSequence(0))[0].tobytes()


def test_batches_errors(data):
    for size, start in ((0, 0), (-1, 0), (4, -1)):
        with pytest.raises(ValueError, match="batch_size must be at least 1"):
            data.batches(size, start=start)


def test_statistics(data):
    x = gather(data)[0].astype(np.float64).reshape(-1, 16)
    mean, std = data.statistics()
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, x.std(axis=0), rtol=1e-12)
    normalized = data.normalized(mean, std)
    assert normalized.features.config()["type"] == "Normalized"
    mean, std = normalized.statistics()
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(std, 1, atol=1e-6)
    assert data.features.config()["type"] == "LogMel"
    with pytest.raises(ValueError, match="normalised already"):
        normalized.normalized(mean, std)
    with pytest.raises(ValueError, match="no samples"):
        data.subset([]).statistics()


def test_statistics_of_constant_bands(tmp_path):
    import soundfile

    (tmp_path / "s" / "a").mkdir(parents=True)
    soundfile.write(tmp_path / "s" / "a" / "silence.wav", np.zeros(2000), 8000)
    data = AudioFolder(tmp_path / "s", features=CountingLogMel(), cache_dir=tmp_path / "cache")
    mean, std = data.statistics()
    np.testing.assert_allclose(mean, -100)
    np.testing.assert_array_equal(std, 1)


def test_normalized_is_what_its_features_give(data):
    normalized = data.normalized(*data.statistics())
    import soundfile

    samples, _ = soundfile.read(data.paths[0], dtype="float32")
    expected = normalized.features(windows(samples, 1600))
    np.testing.assert_array_equal(gather(normalized)[0][:1, ..., 0], expected[:1])
