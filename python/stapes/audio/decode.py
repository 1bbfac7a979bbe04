"""Decoding by libsndfile, and telling a whole file from one that was cut short."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import soundfile

StrPath: TypeAlias = str | os.PathLike[str]

_BLOCK_VALUES = 1 << 18

# Writers to a pipe leave the largest size in the header, since they cannot go back: no promise.
_UNKNOWN_SIZE = 0x7FFF_F000
_UNKNOWN_FRAMES = 1 << 62

_MP3_TAIL_BYTES = 1 << 12  # room for tags after the last frame

# How libsndfile's log tells that a chunk of sound is longer than what is left of the file.
_CUT_CHUNK = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE
)


class AudioError(ValueError):
    """A sound file that cannot be used.

    Attributes
    ----------
    path : str
        The file.
    reason : str
        What is wrong with it, in a few words.
    """

    def __init__(self, path: StrPath, reason: str) -> None:
        super().__init__(os.fspath(path), reason)
        self.path: str = os.fspath(path)
        self.reason: str = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def check_regular_file(path: str) -> None:
    """Raise AudioError unless `path` is a file that holds something."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path would change how the name is printed
    except FileNotFoundError:
        raise AudioError(path, "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise AudioError(path, getattr(error, "strerror", None) or str(error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(path, "is a folder, not a sound file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(path, "is not a regular file")
    if status.st_size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")


def decode(path: str) -> tuple[npt.NDArray[np.float32], int]:
    """Return ``(samples, channels)`` and the rate, or raise AudioError."""
    import soundfile

    if Path(path).suffix.lower() == ".raw":
        raise AudioError(path, "headerless sound (.raw) does not tell its rate and format")
    try:
        with soundfile.SoundFile(path) as file:
            samples = _read_all(file)
            _check_complete(path, file, len(samples))
            return samples, int(file.samplerate)
    except soundfile.LibsndfileError as error:
        raise AudioError(path, _reason(error)) from None


def _read_all(file: soundfile.SoundFile) -> npt.NDArray[np.float32]:
    """Read to the end in blocks, whatever length the header tells."""
    blocks = []
    frames = max(1, _BLOCK_VALUES // file.channels)
    while True:
        room = np.empty((frames, file.channels), np.float32)
        block = file.read(out=room)
        blocks.append(block)
        if len(block) < frames:
            return np.concatenate(blocks) if len(blocks) > 1 else block.copy()


def _check_complete(path: str, file: soundfile.SoundFile, got: int) -> None:
    for declared, there in _CUT_CHUNK.findall(file.extra_info):
        if int(there) < int(declared) < _UNKNOWN_SIZE:
            raise AudioError(
                path, f"cut short: its header promises {declared} bytes, {there} are there"
            )
    if file.format == "MP3" and not _mp3_tells_length(path):
        _check_mp3_end(path)
    elif got < file.frames < _UNKNOWN_FRAMES:
        raise AudioError(
            path, f"cut short: its header promises {file.frames} samples, {got} could be read"
        )


def _mp3_tells_length(path: str) -> bool:
    """Look for the Xing, Info or VBRI frame; without one libsndfile guesses the length."""
    with Path(path).open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            size = 0
            for byte in head[6:]:
                size = size << 7 | byte & 0x7F
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(4096)
    return any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def _check_mp3_end(path: str) -> None:
    """Raise if libsndfile stops early: it guesses a length from the first frame's bit rate.

    It never reads beyond its guess, so that most of a stream of variable bit rate may be missing.
    """
    import soundfile

    with Path(path).open("rb") as stream:
        with soundfile.SoundFile(stream) as file:
            _read_all(file)
            position = stream.tell()
        size = stream.seek(0, os.SEEK_END)
    if size - position > max(_MP3_TAIL_BYTES, size // 20):
        raise AudioError(
            path,
            f"MP3 of variable bit rate without its length: the decoder stops after {position} of "
            f"{size} bytes (convert it, for example to FLAC)",
        )


def _reason(error: soundfile.LibsndfileError) -> str:
    text = error.error_string.removeprefix("Error : ").rstrip(".")
    if "Format not recognised" in text:
        return "is no sound file that libsndfile knows"
    if "not a regular file" in text:  # libsndfile's words where it finds no two frames of MP3
        return "is no MP3, or too little of one"
    return f"cannot be decoded: {text}"
