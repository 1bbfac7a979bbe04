"""`stapes.audio.load` and `save`: files of many formats, resampling, and files that are bad."""

import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from stapes import audio

RATE = 16000


def tone(seconds=1.0, hz=440.0, rate=RATE):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write(path, samples, rate=RATE, **how):
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, **how) as file:
        for start in range(
            0, len(samples), 16000
        ):  # one large OGG write overflows libsndfile's stack
            file.write(samples[start : start + 16000])
    return path


def bad(path, **how):
    with pytest.raises(audio.AudioError) as caught:
        audio.load(path, **how)
    error = caught.value
    assert error.path == os.fspath(path)
    assert str(error) == f"{error.path}: {error.reason}"
    return error.reason


LOSSLESS = [
    ("wav", "PCM_16", 2**-15),
    ("wav", "PCM_24", 2**-23),
    ("wav", "FLOAT", 0),
    ("wav", "DOUBLE", 0),
    ("wav", "PCM_U8", 2**-7),
    ("flac", "PCM_16", 2**-15),
    ("flac", "PCM_24", 2**-23),
    ("aiff", "PCM_16", 2**-15),
    ("au", "PCM_16", 2**-15),
    ("caf", "PCM_16", 2**-15),
    ("w64", "PCM_16", 2**-15),
]


@pytest.mark.parametrize(("suffix", "subtype", "step"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats(tmp_path, suffix, subtype, step, channels):
    x = np.stack([tone(hz=200.0 * (c + 1)) for c in range(channels)], axis=1)
    path = write(tmp_path / f"a.{suffix}", x, subtype=subtype)
    y, rate = audio.load(path, mono=False)
    assert (rate, y.dtype, y.shape) == (RATE, np.float32, x.shape)
    np.testing.assert_allclose(y, x, rtol=0, atol=step)
    mono, _ = audio.load(str(path))
    assert mono.dtype == np.float32 and mono.flags.c_contiguous
    np.testing.assert_allclose(mono, y.astype(np.float64).mean(axis=1), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")]
)
def test_lossy_formats(tmp_path, suffix, subtype):
    x = tone(2.0)
    y, rate = audio.load(write(tmp_path / f"a.{suffix}", x, format=suffix, subtype=subtype))
    assert rate == RATE
    assert len(y) == len(x)
    middle = slice(4000, -4000)
    assert np.linalg.norm(y[middle] - x[middle]) < 0.02 * np.linalg.norm(x[middle])


def test_long_file_is_read_whole(tmp_path):
    x = np.arange(700_001, dtype=np.float32) / 2**20
    y, _ = audio.load(write(tmp_path / "a.wav", x, subtype="FLOAT"))
    assert np.array_equal(x, y)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_gives_the_same_sine(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(1.5, rate=rate), rate, subtype="FLOAT")
    y, got = audio.load(path, sample_rate=RATE)
    assert got == RATE and y.dtype == np.float32
    assert abs(len(y) - 1.5 * RATE) <= 1
    middle = slice(2000, 22000)
    np.testing.assert_allclose(y[middle], tone(1.5)[middle], atol=2e-5)


def test_resampling_removes_what_would_alias(tmp_path):
    path = write(tmp_path / "a.wav", tone(1.0, hz=11000.0, rate=48000), 48000, subtype="FLOAT")
    y, _ = audio.load(path, sample_rate=RATE)
    assert np.abs(y[1000:-1000]).max() < 1e-4


def test_resampling_keeps_channels(tmp_path):
    x = np.stack([tone(rate=48000), np.zeros(48000, np.float32)], axis=1)
    path = write(tmp_path / "a.wav", x, 48000, subtype="FLOAT")
    y, _ = audio.load(path, sample_rate=RATE, mono=False)
    assert y.shape == (RATE, 2) and y.flags.c_contiguous
    assert np.abs(y[:, 0]).max() > 0.4 and np.abs(y[:, 1]).max() == 0


def test_same_rate_is_left_alone(tmp_path):
    path = write(tmp_path / "a.wav", tone(), subtype="FLOAT")
    assert np.array_equal(audio.load(path, sample_rate=RATE)[0], tone())


def test_name_is_no_ascii(tmp_path):
    path = write(tmp_path / "声 é.wav", tone())
    assert len(audio.load(path)[0]) == RATE


def test_missing_and_not_a_file(tmp_path):
    assert bad(tmp_path / "none.wav") == "no such file"
    assert "folder" in bad(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    assert "regular file" in bad(tmp_path / "pipe.wav")
    assert "null" in bad("a\0b.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_not_permitted(tmp_path):
    path = write(tmp_path / "a.wav", tone())
    path.chmod(0)
    bad(path)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "ogg", "txt", "raw"])
def test_empty_and_not_audio(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"")
    assert "empty" in bad(path)
    path.write_text("This is no sound at all, only words. " * 100)
    expected = {"raw": "headerless", "mp3": "no MP3"}.get(suffix, "no sound file")
    assert expected in bad(path)


def test_header_without_samples(tmp_path):
    assert bad(write(tmp_path / "a.wav", np.zeros(0, np.float32))) == "holds no samples"


@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "flac", "caf"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_truncated_lossless(tmp_path, suffix, kept):
    path = write(tmp_path / f"a.{suffix}", tone(3.0), subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    reason = bad(path)
    assert "cut short" in reason or "cannot be decoded" in reason
    path.write_bytes(whole)
    assert len(audio.load(path)[0]) == 3 * RATE


def test_truncated_mp3_promised_more(tmp_path):
    path = write(tmp_path / "a.mp3", tone(10.0), format="MP3")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "promises 160000 samples" in bad(path)


def test_truncated_ogg_gives_what_is_left(tmp_path):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * RATE).astype(np.float32)
    path = write(tmp_path / "a.ogg", x, format="OGG", subtype="VORBIS")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    y, _ = audio.load(path)
    assert 0.3 * len(x) < len(y) < 0.7 * len(x)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "caf"])
def test_cut_anywhere_or_damaged_never_crashes(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", tone(0.5), format=suffix)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, min(len(data), 200), rng.integers(0, 4)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            y, _ = audio.load(path)
        except audio.AudioError as error:
            assert error.reason
        else:
            assert len(y) and np.isfinite(y).all()


def mp3_without_its_length(path, samples, mode):
    """Write an MP3 and drop its first frame, the one that tells how many there are."""
    write(path, samples, format="MP3", bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    kbps = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160][data[2] >> 4]
    path.write_bytes(data[72 * kbps * 1000 // RATE + (data[2] >> 1 & 1) :])  # MPEG 2, layer III


LOUD_THEN_SILENT = np.random.default_rng(0).uniform(-0.8, 0.8, 10 * RATE).astype(np.float32)
LOUD_THEN_SILENT[5 * RATE :] = 0


def test_mp3_of_constant_rate_without_its_length(tmp_path):
    mp3_without_its_length(tmp_path / "a.mp3", LOUD_THEN_SILENT, "CONSTANT")
    assert 0 <= len(audio.load(tmp_path / "a.mp3")[0]) - 10 * RATE < 2000
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])  # nothing tells that it was longer
    assert abs(len(audio.load(tmp_path / "a.mp3")[0]) - 5 * RATE) < 2000


def test_mp3_of_variable_rate_without_its_length(tmp_path):
    # libsndfile takes the first frame's rate for all: it would stop in the middle of the loud part.
    mp3_without_its_length(tmp_path / "a.mp3", LOUD_THEN_SILENT, "VARIABLE")
    assert "variable bit rate" in bad(tmp_path / "a.mp3")


def test_mp3_with_a_picture_before_the_first_frame(tmp_path):
    path = write(tmp_path / "a.mp3", tone(10.0), format="MP3")
    sound_bytes = path.stat().st_size
    picture = b"ID3\x04\0\0\0\1\0\0" + bytes(1 << 14)
    path.write_bytes(picture + path.read_bytes())
    assert len(audio.load(path)[0]) == 10 * RATE
    path.write_bytes(path.read_bytes()[: -sound_bytes // 2])
    assert "promises 160000 samples" in bad(path)


@pytest.mark.parametrize("size", [0x7FFF_FFFF, 0xFFFF_FFFF])
def test_wav_of_unknown_length_from_a_pipe(tmp_path, size):
    path = write(tmp_path / "a.wav", tone(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.find(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(audio.load(path)[0]) == RATE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mono", [True, False])
def test_not_finite(tmp_path, value, mono):
    x = np.stack([tone(), tone()], axis=1)
    x[123, 1] = value
    path = write(tmp_path / "a.wav", x, subtype="FLOAT")
    assert "sample 123 " in bad(path, mono=mono)


def test_too_short_to_resample(tmp_path):
    path = write(tmp_path / "a.wav", tone()[:1], 96000)
    assert "too short" in bad(path, sample_rate=8000)


@pytest.mark.parametrize(
    ("rate", "error"),
    [(0, ValueError), (-8000, ValueError), (16000.0, TypeError), (True, TypeError)],
)
def test_wrong_rate(tmp_path, rate, error):
    with pytest.raises(error, match="sample_rate"):
        audio.load(write(tmp_path / "a.wav", tone()), sample_rate=rate)


def test_error_is_a_value_error_and_travels_between_processes():
    error = pickle.loads(pickle.dumps(audio.AudioError("a.wav", "no such file")))
    assert isinstance(error, ValueError)
    assert (error.path, error.reason, str(error)) == (
        "a.wav",
        "no such file",
        "a.wav: no such file",
    )


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aif"])
def test_save(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    audio.save(path, tone(3.0), RATE)
    y, rate = audio.load(path)
    assert rate == RATE and len(y) == 3 * RATE
    assert list(tmp_path.iterdir()) == [path]


def test_save_clips_and_keeps_channels(tmp_path):
    audio.save(tmp_path / "a.wav", np.array([[2.0, 0.25], [-2.0, 0.5]]), RATE)
    y, _ = audio.load(tmp_path / "a.wav", mono=False)
    np.testing.assert_allclose(y, [[1.0, 0.25], [-1.0, 0.5]], atol=2**-15)


def test_save_refuses(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="floating"):
        audio.save(path, np.zeros(8, np.int16), RATE)
    with pytest.raises(ValueError, match="finite"):
        audio.save(path, np.array([np.nan]), RATE)
    with pytest.raises(ValueError, match="cannot write"):
        audio.save(tmp_path / "a.xyz", tone(), RATE)
    with pytest.raises(ValueError, match="does not take"):
        audio.save(tmp_path / "a.mp3", tone(), 1234)
    with pytest.raises(OSError, match="none"):
        audio.save(tmp_path / "none" / "a.wav", tone(), RATE)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_imports_are_late(tmp_path):
    path = write(tmp_path / "a.wav", tone(), 8000)
    program = f"""
import sys
from stapes import audio
audio.MFCC()(audio.LogMel()([0.0] * 800)[0].repeat(10))
assert not {{"soundfile", "soxr", "scipy"}} & set(sys.modules)
audio.load({str(path)!r}, sample_rate=16000)
assert "soxr" in sys.modules and "scipy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
