"""`stapes.audio.LogMel`, `MFCC` and `Normalized`: parity with three toolkits, and properties."""

import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import feature_formulas as formulas
from stapes import audio

DB_LIMIT = 1e-3
LN_LIMIT = 2.3e-4
PRESETS = ["librosa", "torchaudio", "kaldi"]


@pytest.fixture(scope="module")
def librosa():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("librosa")


def clips():
    """Clips with what is hard: silence, an onset, a loud tone beside noise 75 dB below it."""
    rng = np.random.default_rng(0)
    t = np.arange(3 * 16000) / 16000
    noise = rng.standard_normal(len(t))
    chirp = np.sin(2 * np.pi * (50 * t + 1300 * t**2)) * np.exp(-t)
    gated = noise * (np.sin(2 * np.pi * 3 * t) > 0) * 10 ** (-3 * t / 3)
    beside = 0.9 * np.sin(2 * np.pi * 1000 * t) + 1e-4 * noise
    quiet = 1e-3 * noise
    offset = 0.5 + 0.1 * noise
    named = {"chirp": chirp, "gated": gated, "beside": beside, "quiet": quiet, "offset": offset}
    return [pytest.param(x.astype(np.float32), id=name) for name, x in named.items()]


SIZES = [
    {},
    {"n_fft": 400, "win_length": 400, "n_mels": 40},
    {"sample_rate": 22050, "n_fft": 1024, "win_length": 1024, "hop_length": 512, "n_mels": 80},
    {
        "n_fft": 1024,
        "win_length": 401,
        "hop_length": 163,
        "n_mels": 50,
        "fmin": 60.0,
        "fmax": 7600.0,
    },
]
EVEN_SIZES = [s for s in SIZES if s.get("n_fft", 512) % 2 == 0]


def sizes(preset, given):
    """Return all settings, as the documentation says which of them a preset sets."""
    filled = {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160}
    filled |= {"n_mels": 64, "fmin": 20.0 if preset == "kaldi" else 0.0} | given
    return {"fmax": filled["sample_rate"] / 2} | filled


def worst(got, expected, range_db=80.0):
    """Return the largest error where `expected` is within `range_db` of its maximum."""
    expected = np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    heard = expected > expected.max() - range_db
    assert heard.sum() > 100
    return np.abs(got - expected)[heard].max()


@pytest.mark.parametrize("x", clips())
@pytest.mark.parametrize("given", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_mel_equals_librosa(librosa, x, given, dtype):
    s = sizes("librosa", given)
    mel = librosa.feature.melspectrogram(y=x.astype(dtype), sr=s.pop("sample_rate"), **s)
    expected = librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None).T
    assert worst(audio.LogMel(**given)(x.astype(dtype)), expected) < DB_LIMIT


@pytest.mark.parametrize("x", clips())
@pytest.mark.parametrize("given", SIZES)
def test_mfcc_equals_librosa(librosa, x, given):
    s = sizes("librosa", given)
    expected = librosa.feature.mfcc(y=x.astype(np.float64), sr=s.pop("sample_rate"), **s).T
    got = audio.MFCC(**given)(x)
    assert got.shape[1] == min(20, s["n_mels"])
    assert np.abs(got - expected).max() < DB_LIMIT


@pytest.mark.parametrize("x", clips())
@pytest.mark.parametrize("given", SIZES)
def test_log_mel_equals_torchaudio(x, given):
    pytest.importorskip("torch")
    expected = formulas.torchaudio_log_mel(x, **sizes("torchaudio", given)).numpy()
    assert worst(audio.LogMel(preset="torchaudio", **given)(x), expected) < DB_LIMIT


@pytest.mark.parametrize("x", clips())
@pytest.mark.parametrize("given", SIZES)
def test_mfcc_equals_torchaudio(x, given):
    pytest.importorskip("torch")
    s = sizes("torchaudio", given)
    expected = formulas.torchaudio_mfcc(x, **s, n_mfcc=min(40, s["n_mels"]))
    assert np.abs(audio.MFCC(preset="torchaudio", **given)(x) - expected).max() < DB_LIMIT


@pytest.mark.parametrize("x", clips())
@pytest.mark.parametrize("given", EVEN_SIZES)
def test_log_mel_equals_kaldi(x, given):
    expected = formulas.kaldi_fbank(x[:16000], **sizes("kaldi", given))
    got = audio.LogMel(preset="kaldi", **given)(x[:16000])
    assert worst(got, expected, 80.0 * np.log(10.0) / 10.0) < LN_LIMIT


@pytest.mark.parametrize("x", clips())
@pytest.mark.parametrize("given", EVEN_SIZES)
def test_mfcc_equals_kaldi(x, given):
    expected = formulas.kaldi_mfcc(x[:16000], **sizes("kaldi", {"n_mels": 23} | given), n_mfcc=13)
    got = audio.MFCC(preset="kaldi", **given)(x[:16000])
    assert np.abs(got - expected).max() < LN_LIMIT


def test_silence_is_the_floor():
    x = np.zeros(4000, np.float32)
    assert np.all(audio.LogMel()(x) == -100.0)
    assert np.all(audio.LogMel(preset="torchaudio")(x) == -100.0)
    np.testing.assert_allclose(audio.LogMel(preset="kaldi")(x), np.log(2.0**-23), rtol=1e-6)
    flat = audio.MFCC()(x)
    np.testing.assert_allclose(flat[:, 0], -100.0 * np.sqrt(64), rtol=1e-6)
    np.testing.assert_allclose(flat[:, 1:], 0, atol=1e-4)


def test_impulse_weighs_each_frame_by_its_window():
    # Its spectrum is flat: each frame holds the squared window at the impulse times the filters.
    x = np.zeros(8000, np.float32)
    x[3217] = 1.0
    f = audio.LogMel(preset="torchaudio", n_mels=40)
    y = 10.0 ** (f(x).astype(np.float64) / 10.0)
    for t, frame in enumerate(y):
        n = 3217 - (t * 160 - 200)  # place in the window of frame t, centred on sample 160 t
        weight = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400) if 0 <= n < 400 else 0.0
        np.testing.assert_allclose(
            frame, y[20] * (weight / peak_weight(20)) ** 2, atol=2e-10, rtol=1e-4
        )


def peak_weight(t):
    return 0.5 - 0.5 * np.cos(2 * np.pi * (3217 - (t * 160 - 200)) / 400)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("hz", [150.0, 440.0, 1000.0, 2500.0, 6000.0])
def test_a_tone_lands_in_its_band(preset, hz):
    f = audio.LogMel(n_fft=2048, win_length=2048, n_mels=40, fmin=20.0, preset=preset)
    x = 0.5 * np.sin(2 * np.pi * hz * np.arange(16000) / 16000)

    def to_mel(v):
        if preset != "librosa":
            return np.log1p(v / 700.0)
        return v / 1000.0 if v < 1000 else 1.0 + np.log(v / 1000.0) / np.log(6.4) * 27 / 15

    place = (to_mel(hz) - to_mel(20.0)) / (to_mel(8000.0) - to_mel(20.0)) * 41 - 1
    assert abs(f(x)[3].argmax() - place) <= 0.6


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", [audio.LogMel, audio.MFCC])
def test_a_clip_gives_the_same_bits_alone_in_a_batch_and_in_threads(preset, kind):
    f = kind(preset=preset)
    x = np.random.default_rng(0).standard_normal((3, 50_000)).astype(np.float32)
    x[1] *= 1e-3  # the limit of 80 dB is each clip's own
    batch = f(x)
    assert batch.dtype == np.float32 and batch.flags.c_contiguous
    assert batch.shape == (3, f.frames(50_000), f.bands)
    with ThreadPoolExecutor(3) as pool:
        for got, expected in zip(pool.map(f, x), batch, strict=True):
            assert np.array_equal(got, expected)
    assert np.array_equal(f(x[:, ::-1][:, ::-1]), batch)
    assert np.array_equal(f(np.asfortranarray(x)), batch)
    assert f(x[:0]).shape == (0, f.frames(50_000), f.bands)


def test_kaldi_frame_is_independent_of_its_place():
    x = np.random.default_rng(0).standard_normal(160 * 700).astype(np.float32)
    f = audio.LogMel(preset="kaldi")
    assert np.array_equal(f(x)[300:], f(x[300 * 160 :]))


@st.composite
def settings_and_clip(draw):
    n_fft = 2 * draw(st.integers(32, 300))
    win_length = draw(st.integers(2, n_fft))
    chosen = {
        "sample_rate": draw(st.sampled_from([8000, 11025, 16000, 44100])),
        "n_fft": n_fft,
        "win_length": win_length,
        "hop_length": draw(st.integers(1, 300)),
        "n_mels": draw(st.integers(1, 12)),
        "fmin": float(draw(st.integers(0, 300))),
        "fmax": float(draw(st.integers(2500, 4000))),
    }
    length = draw(st.integers(n_fft, 2500))
    x = np.random.default_rng(draw(st.integers(0, 99))).uniform(-1, 1, length)
    return chosen, x.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(settings_and_clip())
def test_any_setting_equals_the_formulas(case):
    chosen, x = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bands that hold no bin
        kaldi = audio.LogMel(preset="kaldi", **chosen)
        torchaudio = audio.LogMel(preset="torchaudio", **chosen)
        librosa = audio.LogMel(**chosen)
    got = kaldi(x)
    assert got.shape == (kaldi.frames(len(x)), chosen["n_mels"])
    np.testing.assert_allclose(got, formulas.kaldi_fbank(x, **chosen), rtol=0, atol=LN_LIMIT)
    pytest.importorskip("torch")
    got = torchaudio(x)
    expected = formulas.torchaudio_log_mel(x, **chosen).numpy()
    assert got.shape == expected.shape == librosa(x).shape
    assert librosa.frames(len(x)) == torchaudio.frames(len(x)) == len(expected)
    np.testing.assert_allclose(got, expected, rtol=0, atol=DB_LIMIT)


@pytest.mark.parametrize(
    "f",
    [
        audio.LogMel(),
        audio.LogMel(8000, 256, 200, 80, 23, 20, 3800, "kaldi"),
        audio.MFCC(preset="torchaudio", n_mfcc=33),
        audio.Normalized(audio.MFCC(), np.arange(20.0), np.full(20, 1 / 3)),
    ],
)
def test_config_rebuilds_the_object(f):
    again = audio.from_config(json.loads(json.dumps(f.config())))
    assert again == f and hash(again) == hash(f) and again is not f
    assert f"{f.config()['type']}(" in repr(f)
    x = np.random.default_rng(0).standard_normal(9000)
    assert np.array_equal(again(x), f(x))
    assert np.array_equal(pickle.loads(pickle.dumps(f))(x), f(x))
    assert (again.sample_rate, again.bands) == (f.sample_rate, f.bands)


def test_equality_is_of_what_is_computed():
    assert audio.LogMel(fmax=8000) == audio.LogMel(fmin=0, fmax=None)
    assert audio.LogMel() != audio.LogMel(hop_length=161)
    assert audio.LogMel() != audio.MFCC() and audio.LogMel() != "LogMel"
    assert audio.LogMel(preset="kaldi") == audio.LogMel(preset="kaldi", fmin=20)
    assert audio.LogMel(preset="kaldi", fmin=0).fmin == 0


def test_normalized():
    x = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)
    inner = audio.LogMel(n_mels=8)
    raw = inner(x).astype(np.float64)
    mean, std = raw.mean(axis=(0, 1)), raw.std(axis=(0, 1))
    std[3] = 0.0
    f = audio.Normalized(inner, mean, std)
    y = f(x)
    assert y.dtype == np.float32 and f.frames(8000) == inner.frames(8000)
    std[3] = 1.0
    np.testing.assert_allclose(y, (raw - mean) / std, atol=1e-5)
    assert np.array_equal(f(x[0]), y[0])
    assert f != audio.Normalized(inner, mean + 1, std)


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0] * 7, [1] * 8), ([0] * 8, [-1] * 8), ([np.nan] * 8, [1] * 8), ([0] * 8, [np.inf] * 8)],
)
def test_normalized_refuses(mean, std):
    with pytest.raises(ValueError, match=r"Normalized: (mean|std) must"):
        audio.Normalized(audio.LogMel(n_mels=8), mean, std)
    with pytest.raises(TypeError, match="features must be"):
        audio.Normalized("LogMel", mean, std)


@pytest.mark.parametrize(("preset", "least"), [("librosa", 1), ("torchaudio", 257), ("kaldi", 400)])
@pytest.mark.parametrize("kind", [audio.LogMel, audio.MFCC])
def test_too_short(preset, least, kind):
    f = kind(preset=preset)
    assert f(np.full(least, 0.1, np.float32)).shape == (f.frames(least), f.bands)
    with pytest.raises(ValueError, match=f"at least {least} samples, got {least - 1}"):
        f(np.zeros(least - 1, np.float32))
    with pytest.raises(ValueError, match="at least"):
        f.frames(least - 1)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.int64])
def test_integers_are_refused(dtype):
    with pytest.raises(TypeError, match=r"\[-1, 1\].*scale"):
        audio.LogMel()(np.zeros(8000, dtype))


@pytest.mark.parametrize("dtype", [np.complex64, bool, object, "U3"])
def test_no_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=r"floating point|float32"):
        audio.MFCC()(np.zeros(8000, dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_not_finite_is_refused(value):
    x = np.zeros(8000)
    x[77] = value
    with pytest.raises(ValueError, match="finite"):
        audio.LogMel()(x)


@pytest.mark.parametrize("shape", [(), (2, 3, 4000)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match="batch, samples"):
        audio.LogMel()(np.zeros(shape))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"preset": "essentia"}, ValueError, "librosa, torchaudio, kaldi"),
        ({"win_length": 600}, ValueError, "at most n_fft"),
        ({"hop_length": 0}, ValueError, "hop_length must be at least 1"),
        ({"n_mels": 2.5}, TypeError, "n_mels must be an int"),
        ({"fmin": 9000}, ValueError, "fmin < fmax"),
        ({"fmax": 8001}, ValueError, "sample_rate / 2"),
        ({"fmin": -1}, ValueError, "0 <= fmin"),
        ({"fmax": float("nan")}, ValueError, "fmax must be finite"),
        ({"fmax": "8000"}, TypeError, "fmax must be a number"),
        ({"sample_rate": 0}, ValueError, "sample_rate"),
        ({"n_fft": 513, "preset": "kaldi"}, ValueError, "even"),
        ({"n_mfcc": 65}, ValueError, "at most n_mels"),
        ({"n_mfcc": 0}, ValueError, "at least 1"),
    ],
)
def test_wrong_settings(given, error, message):
    with pytest.raises(error, match=message):
        audio.MFCC(**given)


def test_bands_without_a_bin_warn():
    with pytest.warns(UserWarning, match="hold no FFT bin"):
        f = audio.LogMel(n_fft=256, win_length=256, n_mels=128)
    assert np.isfinite(f(np.ones(1000))).all()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"type": "Cepstrum"},
        {"type": "LogMel", "sample_rate": 16000},
        {**audio.LogMel().config(), "dither": 1},
        {"type": "Normalized", "features": {}, "mean": [], "std": []},
    ],
)
def test_from_config_refuses(config):
    with pytest.raises(ValueError, match="from_config"):
        audio.from_config(config)
    with pytest.raises(TypeError, match="mapping"):
        audio.from_config([config])
