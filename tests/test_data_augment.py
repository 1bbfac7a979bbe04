"""Augmentation: what it does to a batch, and that the seed alone decides."""

from __future__ import annotations

import numpy as np
import pytest

from sounds import RATE, CountingLogMel, folder, gather
from stapes import nn
from stapes.audio import MFCC, LogMel
from stapes.audio.features import Features
from stapes.data import AudioFolder, Augment, Augmented

OFF = {"shift": 0, "gain": 0, "time_masks": 0, "band_masks": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("augment")
    root = folder(path / "sounds", "abc", files=6, seconds=0.4)
    data = AudioFolder(root, features=CountingLogMel(), cache_dir=path / "cache")
    return data.normalized(*data.statistics())


def batch(n=200, frames=40, bands=16):
    x = np.random.default_rng(0).standard_normal((n, frames, bands, 1)).astype(np.float32)
    return x, np.arange(n) % 3


def change(augment, x, y, seed=0, **keywords):
    before = x.copy()
    result = augment(x, y, np.random.default_rng(seed), classes=3, **keywords)
    np.testing.assert_array_equal(x, before)
    assert result[0].dtype == np.float32
    assert result[0].shape == x.shape
    return result


def test_off_changes_nothing():
    x, y = batch()
    out, labels = change(Augment(**OFF), x, y)
    np.testing.assert_array_equal(out, x)
    assert labels is y


def test_shift_moves_frames_in_a_circle():
    x, y = batch()
    out, _ = change(Augment(**{**OFF, "shift": 0.25}), x, y)
    moved = []
    for row, new in zip(x, out, strict=True):
        fits = [by for by in range(-20, 20) if np.array_equal(np.roll(row, by, axis=0), new)]
        assert len(fits) == 1
        moved += fits
    assert (min(moved), max(moved)) == (-10, 10)
    assert len(set(moved)) == 21


def test_gain_adds_the_same_to_every_frame():
    x, y = batch()
    decibel = np.linspace(0, 1, 16)
    out, _ = change(Augment(**{**OFF, "gain": 6}), x, y, decibel=decibel)
    added = (out - x)[..., 0]
    by = added[:, 0, -1]
    np.testing.assert_allclose(added, by[:, None, None] * np.ones((40, 1)) * decibel, atol=1e-5)
    assert -6 <= by.min() < -5
    assert 5 < by.max() <= 6


@pytest.mark.parametrize(("axis", "kind"), [(1, "time"), (2, "band")])
def test_masks_are_stretches_of_the_mean(axis, kind):
    x, y = batch()
    size = x.shape[axis]
    mean = np.arange(16.0) + 10
    augment = Augment(**{**OFF, f"{kind}_masks": 1, f"{kind}_width": 0.25})
    out, _ = change(augment, x, y, mean=mean)
    masked = (out != x)[..., 0]
    expected = np.broadcast_to(mean, masked.shape)[masked]
    np.testing.assert_array_equal(out[..., 0][masked], expected)
    widths = []
    for sample in masked:
        lines = sample.all(axis=2 - axis)
        assert np.array_equal(lines, sample.any(axis=2 - axis))
        (where,) = np.nonzero(lines)
        assert where.size == 0 or where[-1] - where[0] + 1 == where.size
        widths.append(where.size)
    assert (min(widths), max(widths)) == (0, size // 4)
    covered = masked.any(axis=0).any(axis=2 - axis)
    assert covered.all()


def test_mixup_mixes_samples_and_labels():
    x, y = batch()
    out, labels = change(Augment(**OFF, mixup=0.4), x, y)
    assert labels.shape == (200, 3)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    flat, mixed = x.reshape(200, -1).astype(np.float64), out.reshape(200, -1)
    for i in range(0, 200, 20):
        # Each is share * own + (1 - share) * other: look for the other that explains it.
        rests = []
        for j in range(200):
            direction = flat[i] - flat[j]
            share = (mixed[i] - flat[j]) @ direction / max(direction @ direction, 1e-9)
            rest = np.abs(mixed[i] - flat[j] - share * direction).max()
            target = np.eye(3)[y[i]] * share + np.eye(3)[y[j]] * (1 - share)
            rests.append(max(rest, np.abs(target - labels[i]).max()))
        assert min(rests) < 1e-4 or np.abs(mixed[i] - flat[i]).max() < 1e-4


def test_the_seed_and_the_number_of_the_batch_decide(data):
    augmented = Augmented(data, Augment(mixup=0.3))
    whole = list(augmented.batches(4, shuffle=True, seed=[7, 2]))
    for start in range(6):
        rest = list(augmented.batches(4, shuffle=True, seed=[7, 2], start=start))
        for (x, y), (same_x, same_y) in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(x, same_x)
            np.testing.assert_array_equal(y, same_y)
    other = next(augmented.batches(4, shuffle=True, seed=[7, 3]))
    assert not np.array_equal(other[0], whole[0][0])
    assert not np.array_equal(whole[0][0], whole[1][0])


def test_order_is_that_of_the_data(data):
    augmented = Augmented(data, Augment(**OFF))
    x, y = gather(augmented, shuffle=True, seed=5)
    same_x, same_y = gather(data, shuffle=True, seed=5)
    np.testing.assert_array_equal(x, same_x)
    np.testing.assert_array_equal(y, same_y)


def test_evaluation_sees_the_data_as_it_is(data):
    changed = Augmented(data, Augment(mixup=0.3))
    model = nn.Sequential(nn.GlobalAvgPool2d(), nn.Linear(None, 3))
    model.compile("sgd")
    history = model.fit(changed, validation_data=changed, progress=False).history
    plain = model.evaluate(data)
    assert model.evaluate(changed) == plain
    assert history["val_loss"] == [plain["loss"]]
    assert history["loss"] != [plain["loss"]]
    np.testing.assert_array_equal(model.predict(changed), model.predict(data))


def test_interface_is_the_data_s(data):
    augmented = Augmented(data, Augment())
    assert len(augmented) == len(data)
    for name in ("classes", "groups", "paths", "skipped", "features", "clip_seconds"):
        assert getattr(augmented, name) is getattr(data, name)
    np.testing.assert_array_equal(augmented.statistics()[0], data.statistics()[0])
    train, valid = augmented.split(0.3, seed=0)
    assert isinstance(train, Augmented)
    assert not isinstance(valid, Augmented)
    plain = data.split(0.3, seed=0)
    np.testing.assert_array_equal(gather(valid)[0], gather(plain[1])[0])
    assert not np.array_equal(gather(train)[0], gather(plain[0])[0])
    assert train.paths == plain[0].paths


@pytest.mark.parametrize(
    ("features", "step"),
    [
        (LogMel(RATE, n_fft=256, win_length=200, n_mels=8), np.ones(8)),
        (LogMel(RATE, n_fft=256, win_length=200, n_mels=8, preset="kaldi"),
         np.full(8, np.log(10) / 10)),
        (MFCC(RATE, n_fft=256, win_length=200, n_mels=9, n_mfcc=5), 3.0 * (np.arange(5) == 0)),
    ],
    ids=["dB", "natural", "mfcc"],
)  # fmt: skip
def test_gain_is_that_of_the_sound(tmp_path, features, step):
    data = AudioFolder(folder(tmp_path / "s"), features=features, cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(Augmented(data, Augment())._decibel(), step, atol=1e-5)
    mean, std = data.statistics()
    normalized = Augmented(data.normalized(mean, std), Augment())
    np.testing.assert_allclose(normalized._decibel(), step / std, atol=1e-5)


class Loudness(Features):
    """Root of the mean square of each half: no logarithm."""

    sample_rate, bands = RATE, 1

    def frames(self, n_samples):
        return 2

    def config(self):
        return {"type": "Loudness"}

    def _compute(self, clips):
        halves = clips[:, : clips.shape[1] // 2 * 2].reshape(len(clips), 2, -1)
        return np.sqrt((halves**2).mean(axis=2, keepdims=True)).astype(np.float32)


def test_gain_needs_logarithms(tmp_path):
    data = AudioFolder(folder(tmp_path / "s"), features=Loudness(), cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match="logarithms of a level"):
        Augmented(data, Augment())
    x, _ = gather(Augmented(data, Augment(gain=0)))
    assert x.shape == (8, 2, 1, 1)


def test_masks_of_plain_data_take_its_mean(tmp_path):
    data = AudioFolder(
        folder(tmp_path / "s"), features=CountingLogMel(), cache_dir=tmp_path / "cache"
    )
    augment = Augment(**{**OFF, "band_masks": 1, "band_width": 1.0})
    x, y = gather(data), gather(Augmented(data, augment))
    masked = x[0] != y[0]
    mean = data.statistics()[0].astype(np.float32)[:, np.newaxis]
    np.testing.assert_array_equal(y[0][masked], np.broadcast_to(mean, x[0].shape)[masked])
    assert masked.any()


@pytest.mark.parametrize(
    "wrong",
    [{"shift": 1.5}, {"gain": -1}, {"time_width": float("nan")}, {"mixup": float("inf")},
     {"band_masks": -2}],
)  # fmt: skip
def test_augment_errors(wrong):
    with pytest.raises(ValueError, match=f"Augment: {next(iter(wrong))} must lie in"):
        Augment(**wrong)
    with pytest.raises(TypeError, match="Augment: gain must be a number, got str"):
        Augment(gain="6")
