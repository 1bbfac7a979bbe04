"""CUDA's log-mel against audio.LogMel's in float64, which test_features.py ties to formulas."""

from __future__ import annotations

import numpy as np
import pytest

import stapes.ops
from stapes import audio

PRESETS = ["librosa", "torchaudio", "kaldi"]

LIMIT = 1e-4  # dB; results are float32, and 100 dB have an ulp of 8e-6

SIZES = [
    {},
    {"n_fft": 1024, "win_length": 1024, "hop_length": 250, "n_mels": 40},
    {"n_fft": 400, "n_mels": 23},  # 200 = 4 * 2 * 5 * 5
    {"n_fft": 180, "win_length": 121, "n_mels": 12},  # 90 = 2 * 3 * 3 * 5
    {"n_fft": 64, "win_length": 64, "hop_length": 64, "n_mels": 5},
    {"n_fft": 154, "win_length": 100, "n_mels": 9},  # 77 = 7 * 11
    {"n_fft": 2048, "win_length": 2048, "n_mels": 300},  # more bands than threads of a frame
]


@pytest.fixture
def cuda(ops):
    if ops.kernels == "cpu":
        pytest.skip("NumPy arrays are audio.LogMel's")
    return ops


def on_device(cuda, features, x):
    x = np.atleast_2d(x)
    return cuda.log_mel(x, *features.operator_tables(), **features.operator_settings(x.shape[1]))


def clip(samples=3000, seed=0, rate=16000):
    """A chord over faint noise, some of it silent, and a step that wants its mean taken off."""
    t = np.arange(samples) / rate
    x = sum(0.2 / (k + 1) * np.sin(2 * np.pi * hz * t + k) for k, hz in enumerate((220, 577, 3100)))
    x += 1e-3 * np.random.default_rng(seed).standard_normal(samples) + 0.05
    x[samples // 2 : samples * 3 // 5] = 0
    return x.astype(np.float32)


def largest_difference(got, want, decibels):
    """In dB or natural logarithms, where ``want`` is at most 80 dB below its largest."""
    assert got.shape == want.shape and got.dtype == np.float32
    range_ = 80.0 if decibels else 8.0 * np.log(10.0)
    heard = want > want.max(axis=(-2, -1), keepdims=True) - range_
    assert heard.mean() > 0.3
    return np.abs(got.astype(np.float64) - want)[heard].max()


@pytest.mark.filterwarnings("ignore:.*hold no FFT bin")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_equals_the_cpu(cuda, preset, sizes):
    features = audio.LogMel(**sizes, preset=preset)
    x = np.stack([clip(2500), 0.01 * clip(2500, 1)])
    got = on_device(cuda, features, x)
    limit = LIMIT if preset != "kaldi" else LIMIT * np.log(10.0) / 10.0
    assert largest_difference(got, features(x), preset != "kaldi") < limit


@pytest.mark.parametrize("n_fft", [401, 2, 3, 243])
@pytest.mark.filterwarnings("ignore:.*hold no FFT bin")
def test_odd_and_tiny_transforms(cuda, n_fft):
    features = audio.LogMel(n_fft=n_fft, win_length=min(n_fft, 300), n_mels=4)
    x = clip(1500)
    assert largest_difference(on_device(cuda, features, x)[0], features(x), True) < LIMIT


@pytest.mark.parametrize("preset", PRESETS)
def test_a_tone_leaves_the_quiet_bands_alone(cuda, preset):
    """Beside it, all there is 80 dB below is the window's side lobes; float32 blurs them."""
    features = audio.LogMel(preset=preset)
    x = (0.9 * np.sin(0.3 * np.arange(1600))).astype(np.float32)
    assert largest_difference(on_device(cuda, features, x)[0], features(x), True) < LIMIT


def test_longest_transform(cuda):
    features = audio.LogMel(n_fft=4096, win_length=4096, hop_length=3000)
    x = clip(7000)
    assert largest_difference(on_device(cuda, features, x)[0], features(x), True) < LIMIT


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 1121, 1280])
def test_ends_and_numbers_of_frames(cuda, samples):
    x = clip(2000)[:samples]
    for preset in PRESETS:
        features = audio.LogMel(n_fft=512, preset=preset)
        try:
            frames = features.frames(samples)
        except ValueError:
            continue
        want = features(x)
        got = on_device(cuda, features, x)[0]
        assert got.shape == (frames, 64)
        np.testing.assert_allclose(got[want > -60], want[want > -60], atol=LIMIT)


def test_silence_is_the_floor(cuda):
    x = np.zeros((1, 1000), np.float32)
    np.testing.assert_allclose(on_device(cuda, audio.LogMel(), x), -100.0, atol=5e-5)
    kaldi = audio.LogMel(preset="kaldi")
    np.testing.assert_allclose(on_device(cuda, kaldi, x), np.log(2.0**-23), rtol=1e-6)
    np.testing.assert_allclose(on_device(cuda, kaldi, x + 0.5), np.log(2.0**-23), rtol=1e-6)


def test_a_clip_gives_the_same_bits_alone_and_in_a_batch(cuda):
    features = audio.LogMel(n_mels=20)
    x = np.stack([clip(1900, seed) for seed in range(3)])
    batch = on_device(cuda, features, x)
    for one, expected in zip(x, batch, strict=True):
        assert np.array_equal(on_device(cuda, features, one)[0], expected)
    assert on_device(cuda, features, x[:0]).shape == (0, *batch.shape[1:])


def test_what_is_not_finite_stays_in_its_frames(cuda):
    features = audio.LogMel(n_fft=512, preset="kaldi")
    x = clip(2000)
    clean = on_device(cuda, features, x)[0]
    x[1000] = np.nan
    dirty = on_device(cuda, features, x)[0]
    first = 160 * np.arange(len(clean))
    hit = (first <= 1000) & (first + 400 > 1000)
    assert np.isnan(dirty[hit]).all() and hit.any()
    assert np.array_equal(dirty[~hit], clean[~hit])


def test_filters_outside_of_the_spectrum_are_cut_off(cuda):
    """The tables lie on the GPU, where nothing can refuse them without waiting."""
    window, roots, bins, weights = audio.LogMel(n_mels=4).operator_tables()
    bins = np.array([[-5, 3], [250, 2**31 - 1], [-(2**31), -1], [400, 300]], np.int32)
    settings = audio.LogMel().operator_settings(1000)
    y = cuda.log_mel(clip(1000)[None], window, roots, bins, np.ones_like(weights), **settings)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y[..., 2:], -100.0, atol=5e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": "wrap"}, "padding must be"),
        ({"padding": "none"}, "frames must lie in the samples, got samples -200 to"),
        ({"padding": "reflect", "offset": -1000}, "frames must lie in the samples"),
        ({"hop_length": 0}, "hop_length must be 1"),
        ({"offset": 2**40}, "offset must be between"),
        ({"frames": -1}, "frames must be at least 0"),
        ({"window": np.ones(513)}, "window must have 1 to n_fft"),
        ({"roots": np.ones((4098, 2))}, "n_fft must be 2 to 4096"),
        ({"roots": np.ones((2049, 2))}, "n_fft must be 2 to 4096, or odd and at most"),
        ({"roots": np.ones((1, 2))}, "n_fft must be"),
        ({"bins": np.ones((3, 2), np.int32)}, "bins must have shape"),
        ({"x": np.ones(1000, np.float32)}, "x must have 2 dimensions"),
    ],
    ids=str,
)
def test_wrong_arguments(cuda, changes, message):
    features = audio.LogMel(n_mels=4)
    names = ("x", "window", "roots", "bins", "weights")
    arrays = dict(zip(names, (clip(1000)[None], *features.operator_tables()), strict=True))
    settings = features.operator_settings(1000)
    for key, value in changes.items():
        (arrays if key in arrays else settings)[key] = value
    with pytest.raises(ValueError, match=message):
        cuda.log_mel(*arrays.values(), **settings)


def test_wrong_dtypes(cuda):
    features = audio.LogMel(n_mels=4)
    x = clip(1000)[None].astype(np.float16)
    with pytest.raises(TypeError, match="x must be float32"):
        cuda.log_mel(x, *features.operator_tables(), **features.operator_settings(1000))


def test_the_cpu_has_no_such_operator():
    features = audio.LogMel(n_mels=4)
    x = clip(1000)[None]
    with pytest.raises(TypeError, match=r"x must be on a CUDA device.*audio\.LogMel"):
        stapes.ops.log_mel(x, *features.operator_tables(), **features.operator_settings(1000))


def test_cupy_arrays_stay_on_their_gpu(cuda):
    if cuda.name != "cuda":
        pytest.skip("no GPU")
    x = clip(2000)
    for preset in PRESETS:
        features = audio.LogMel(preset=preset)
        got = features(cuda.put(x)).get()
        assert largest_difference(got, features(x), preset != "kaldi") < LIMIT
    with pytest.raises(TypeError, match=r"MFCC: computes on the CPU; pass cupy\.asnumpy"):
        audio.MFCC()(cuda.put(x))
