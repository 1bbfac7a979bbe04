"""log_mel against float64 NumPy; test_features.py ties audio.LogMel to formulas."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from devices import same_bits
from stapes import audio

PRESETS = ["librosa", "torchaudio", "kaldi"]

LIMIT = 1e-4  # dB; results are float32, and 100 dB have an ulp of 8e-6
CPU_LIMIT = 8e-6  # double until the result is rounded

SIZES = [
    {},
    {"n_fft": 1024, "win_length": 1024, "hop_length": 250, "n_mels": 40},
    {"n_fft": 400, "n_mels": 23},  # 200 = 4 * 2 * 5 * 5
    {"n_fft": 180, "win_length": 121, "n_mels": 12},  # 90 = 2 * 3 * 3 * 5
    {"n_fft": 64, "win_length": 64, "hop_length": 64, "n_mels": 5},
    {"n_fft": 154, "win_length": 100, "n_mels": 9},  # 77 = 7 * 11
    {"n_fft": 2048, "win_length": 2048, "n_mels": 300},  # more bands than threads of a frame
]


def on_device(ops, features, x):
    x = np.atleast_2d(x)
    return ops.log_mel(x, *features.operator_tables(), **features.operator_settings(x.shape[1]))


def wanted(features, x):
    x = np.atleast_2d(x)
    settings = features.operator_settings(x.shape[1])
    return reference.log_mel(x, *features.operator_tables(), **settings)


def limit(ops, decibels=True):
    return (CPU_LIMIT if ops.kernels == "cpu" else LIMIT) * (1 if decibels else np.log(10.0) / 10)


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
def test_equals_the_reference(ops, preset, sizes):
    features = audio.LogMel(**sizes, preset=preset)
    x = np.stack([clip(2500), 0.01 * clip(2500, 1)])
    got = on_device(ops, features, x)
    decibels = preset != "kaldi"
    assert largest_difference(got, wanted(features, x), decibels) < limit(ops, decibels)


@pytest.mark.parametrize("n_fft", [401, 2, 3, 4, 5, 6, 7, 10, 16, 14, 243, 539, 625])
@pytest.mark.filterwarnings("ignore:.*hold no FFT bin")
def test_odd_and_tiny_transforms(ops, n_fft):
    features = audio.LogMel(n_fft=n_fft, win_length=min(n_fft, 300), n_mels=4)
    x = clip(1500)
    assert largest_difference(on_device(ops, features, x), wanted(features, x), True) < limit(ops)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_tone_leaves_the_quiet_bands_alone(ops, preset):
    """Beside it, all there is 80 dB below is the window's side lobes; float32 blurs them."""
    features = audio.LogMel(preset=preset)
    x = (0.9 * np.sin(0.3 * np.arange(1600))).astype(np.float32)
    assert largest_difference(on_device(ops, features, x), wanted(features, x), True) < limit(ops)


def test_longest_transform(ops):
    features = audio.LogMel(n_fft=4096, win_length=4096, hop_length=3000)
    x = clip(7000)
    assert largest_difference(on_device(ops, features, x), wanted(features, x), True) < limit(ops)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 1121, 1280])
def test_ends_and_numbers_of_frames(ops, samples):
    x = clip(2000)[:samples]
    for preset in PRESETS:
        features = audio.LogMel(n_fft=512, preset=preset)
        try:
            frames = features.frames(samples)
        except ValueError:
            continue
        want = wanted(features, x)
        got = on_device(ops, features, x)
        assert got.shape == (1, frames, 64)
        np.testing.assert_allclose(got[want > -60], want[want > -60], atol=LIMIT)


def test_silence_is_the_floor(ops):
    x = np.zeros((1, 1000), np.float32)
    np.testing.assert_allclose(on_device(ops, audio.LogMel(), x), -100.0, atol=5e-5)
    kaldi = audio.LogMel(preset="kaldi")
    np.testing.assert_allclose(on_device(ops, kaldi, x), np.log(2.0**-23), rtol=1e-6)
    np.testing.assert_allclose(on_device(ops, kaldi, x + 0.5), np.log(2.0**-23), rtol=1e-6)


def test_a_clip_gives_the_same_bits_alone_and_in_a_batch(ops):
    features = audio.LogMel(n_mels=20)
    x = np.stack([clip(1900, seed) for seed in range(3)])
    batch = on_device(ops, features, x)
    for one, expected in zip(x, batch, strict=True):
        assert np.array_equal(on_device(ops, features, one)[0], expected)
    assert on_device(ops, features, x[:0]).shape == (0, *batch.shape[1:])


def test_what_is_not_finite_stays_in_its_frames(ops):
    features = audio.LogMel(n_fft=512, preset="kaldi")
    x = clip(2000)
    clean = on_device(ops, features, x)[0]
    x[1000] = np.nan
    dirty = on_device(ops, features, x)[0]
    first = 160 * np.arange(len(clean))
    hit = (first <= 1000) & (first + 400 > 1000)
    assert np.isnan(dirty[hit]).all() and hit.any()
    assert np.array_equal(dirty[~hit], clean[~hit])


def test_filters_outside_of_the_spectrum_are_cut_off(ops):
    """The tables lie on the GPU, where nothing can refuse them without waiting."""
    window, roots, bins, weights = audio.LogMel(n_mels=4).operator_tables()
    bins = np.array([[-5, 3], [250, 2**31 - 1], [-(2**31), -1], [400, 300]], np.int32)
    settings = audio.LogMel().operator_settings(1000)
    y = ops.log_mel(clip(1000)[None], window, roots, bins, np.ones_like(weights), **settings)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y[..., 2:], -100.0, atol=5e-5)


def test_the_tables_are_read_only():
    for table in audio.LogMel(n_mels=4).operator_tables():
        with pytest.raises(ValueError, match="read-only"):
            table[:1] = 0


def test_what_a_filter_has_below_the_spectrum_is_left_out(ops):
    """Its weights there are passed over: bin 0, the square of the sum, has that of row 5."""
    window, roots, *_ = audio.LogMel(n_fft=16, win_length=16, n_mels=2).operator_tables()
    bins = np.array([[-5, 1], [-5, 3]], np.int32)
    weights = np.zeros((7, 2), np.float32)
    weights[5, 0] = weights[6, 1] = 1
    x = clip(40)[None]
    o = {"frames": 3, "hop_length": 12, "decibels": False}
    y = ops.log_mel(x, window, roots, bins, weights, **o)
    np.testing.assert_allclose(y, reference.log_mel(x, window, roots, bins, weights, **o), 1e-5)
    sums = [float(x[0, t : t + 16].astype(np.float64) @ window) for t in (0, 12, 24)]
    np.testing.assert_allclose(y[0, :, 0], np.log(np.square(sums)), 1e-5)


NO_BANDS = {"bins": np.zeros((0, 2), np.int32), "weights": np.zeros((1, 0), np.float32)}


@pytest.mark.parametrize("changes", [{"frames": 2**40}, {"hop_length": 2**31 - 1}], ids=str)
def test_no_bands(ops, changes):
    features = audio.LogMel(n_mels=4)
    settings = features.operator_settings(1000) | changes
    tables = *features.operator_tables()[:2], *NO_BANDS.values()
    y = ops.log_mel(clip(1000)[None], *tables, **settings)
    assert y.shape == (1, settings["frames"], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": "wrap"}, "padding must be"),
        ({"padding": "none"}, "frames must lie in the samples, got samples -200 to"),
        ({"padding": "reflect", "offset": -1000}, "frames must lie in the samples"),
        ({"hop_length": 0}, "hop_length must be 1"),
        ({"offset": 2**40}, "offset must be between"),
        ({"hop_length": 2**31 - 1, "frames": 2**33} | NO_BANDS, "frames must lie before sample 2"),
        ({"frames": -1}, "frames must be at least 0"),
        ({"window": np.ones(513)}, "window must have 1 to n_fft"),
        ({"roots": np.ones((1, 2))}, "n_fft must be"),
        ({"bins": np.ones((3, 2), np.int32)}, "bins must have shape"),
        ({"x": np.ones(1000, np.float32)}, "x must have 2 dimensions"),
    ],
    ids=str,
)
def test_wrong_arguments(ops, changes, message):
    features = audio.LogMel(n_mels=4)
    names = ("x", "window", "roots", "bins", "weights")
    arrays = dict(zip(names, (clip(1000)[None], *features.operator_tables()), strict=True))
    settings = features.operator_settings(1000)
    for key, value in changes.items():
        (arrays if key in arrays else settings)[key] = value
    with pytest.raises(ValueError, match=message):
        ops.log_mel(*arrays.values(), **settings)


@pytest.mark.parametrize("n_fft", [4098, 2049])
def test_what_is_too_long_for_cuda(ops, n_fft):
    if ops.kernels == "cpu":
        pytest.skip("CUDA's limit")
    tables = audio.LogMel(n_mels=4).operator_tables()
    settings = audio.LogMel().operator_settings(1000)
    with pytest.raises(
        ValueError, match="n_fft must be 2 to 4096, or odd and at most 2048, on CUDA"
    ):
        ops.log_mel(clip(1000)[None], tables[0], np.ones((n_fft, 2)), *tables[2:], **settings)


def test_wrong_dtypes(ops):
    features = audio.LogMel(n_mels=4)
    x = clip(1000)[None].astype(np.float16)
    with pytest.raises(TypeError, match="x must be float32"):
        ops.log_mel(x, *features.operator_tables(), **features.operator_settings(1000))


@pytest.fixture
def cpu(ops):
    if ops.kernels != "cpu":
        pytest.skip("the CPU's alone")
    return ops


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 9, 13])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_frame_gives_the_same_bits_whatever_its_neighbours(ops, preset, frames):
    features = audio.LogMel(n_fft=420, n_mels=7, preset=preset)
    x = np.stack([clip(160 * frames + 500, seed) for seed in range(2)])
    settings = features.operator_settings(x.shape[1]) | {"frames": frames}
    tables = features.operator_tables()
    together = ops.log_mel(x, *tables, **settings)
    for t in range(frames):
        one = settings | {"frames": 1, "offset": settings["offset"] + 160 * t}
        for i in range(2):
            alone = ops.log_mel(x[i : i + 1], *tables, **one)
            assert same_bits(alone[0, 0], together[i, t])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bits(cpu, threads, count):
    features = audio.LogMel(n_fft=400)
    x = np.stack([clip(100_000, seed) for seed in range(3)])
    threads(1)
    one = on_device(cpu, features, x)
    threads(count)
    assert same_bits(on_device(cpu, features, x), one)


@pytest.mark.parametrize("preset", PRESETS)
def test_float64_samples(cpu, preset):
    features = audio.LogMel(preset=preset)
    x = clip(3000).astype(np.float64)
    assert same_bits(on_device(cpu, features, x), on_device(cpu, features, x.astype(np.float32)))
    x *= 1 + 1e-9
    got, want = on_device(cpu, features, x), wanted(features, x)
    decibels = preset != "kaldi"
    assert largest_difference(got, want, decibels) < limit(cpu, decibels)


@pytest.mark.parametrize("n_fft", [8192, 2 * 6561, 4099, 2 * 67 * 71, 5 * 997, 61 * 67])
def test_the_cpu_takes_transforms_of_any_length(cpu, n_fft):
    features = audio.LogMel(n_fft=n_fft, win_length=n_fft, hop_length=5000)
    x = clip(14000)
    assert largest_difference(on_device(cpu, features, x), wanted(features, x), True) < limit(cpu)


def test_logarithms_of_what_is_no_ordinary_number(cpu):
    """A window of one sample: the energy is its square."""
    x = np.sqrt([[0.0, 1e-300, 2.3e-308, 0.5, 0.7071, 0.70711, 1.0, 2.0, 1e300, np.inf]])
    x[0, -1] = 1e200  # its energy is infinite
    tables = np.ones(1), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0, 1]], np.int32)
    o = {"frames": x.size, "hop_length": 1, "floor": 0.0, "decibels": False}
    with np.errstate(divide="ignore", over="ignore"):
        want = np.log(x**2)
    y = cpu.log_mel(x, *tables, np.ones((1, 1), np.float32), **o)[:, :, 0]
    np.testing.assert_allclose(y, want, rtol=1e-7, atol=1e-9)
    y = cpu.log_mel(np.array([[np.nan, 1.0]]), *tables, -np.ones((1, 1), np.float32),
                    **o | {"frames": 2, "floor": -np.inf})  # fmt: skip
    assert np.isnan(y).all()


def test_cupy_arrays_stay_on_their_gpu(ops):
    if ops.name != "cuda":
        pytest.skip("no GPU")
    x = clip(2000)
    for preset in PRESETS:
        features = audio.LogMel(preset=preset)
        got = features(ops.put(x)).get()
        assert largest_difference(got, features(x), preset != "kaldi") < LIMIT
    with pytest.raises(TypeError, match=r"MFCC: computes on the CPU; pass cupy\.asnumpy"):
        audio.MFCC()(ops.put(x))
