"""Log-mel spectrograms beside librosa's and PyTorch's, on one minute of noise."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.audio import LogMel
from stapes.audio.mel import filter_bank
from stapes.bench.report import Row
from stapes.bench.timing import OURS, interleave

_RATE, _HOP, _MELS, _SECONDS = 16000, 160, 64, 60
PEERS = ("librosa", "torch")


@dataclass(frozen=True)
class Task:
    """What to compute.

    Attributes
    ----------
    clips : int
        Into how many clips the minute is cut.
    """

    n_fft: int
    clips: int = 1

    def __str__(self) -> str:
        return f"n_fft {self.n_fft}, {self.clips} x {_SECONDS // self.clips} s"


TASKS = (Task(400), Task(512), Task(1024), Task(400, 60))


def chosen(names: str | None) -> list[str]:
    """Return the peers of a list such as "librosa,torch"; installed ones if None.

    Raises
    ------
    ValueError
        If there is no such peer, or it is not installed.
    """
    if names is None:
        return [name for name in PEERS if find_spec(name)]
    peers = [name for name in names.split(",") if name]
    for name in peers:
        if name not in PEERS:
            raise ValueError(f"--peer: {name!r} is none of {', '.join(PEERS)}")
        if not find_spec(name):
            raise ValueError(f"--peer: {name} is not installed (pip install {name})")
    return peers


def rows(threads: int, peers: list[str], seconds: float) -> Iterator[Row]:
    """Measure one task after another."""
    for task in TASKS:
        yield measure(task, threads, peers, seconds)


def measure(task: Task, threads: int, peers: list[str], seconds: float) -> Row:
    """Measure one task; the facts tell by how many dB the others differ."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((task.clips, _SECONDS * _RATE // task.clips))
    clips = noise.astype(np.float32)
    features = LogMel(_RATE, task.n_fft, task.n_fft, _HOP, _MELS)
    functions: dict[str, Callable[[], Any]] = {OURS: lambda: features(clips)}
    if "librosa" in peers:
        functions["librosa"] = _librosa(task, clips)
    if "torch" in peers:
        functions["torch"] = _torch(task, clips, threads)
    ours = features(clips)
    differ = {
        name: float(np.abs(np.asarray(f()) - ours).max())
        for name, f in functions.items()
        if name != OURS
    }
    run = interleave(functions, seconds=seconds)
    rate = {name: _SECONDS / t.median for name, t in run.times.items()}
    facts = {"dB from ours": differ, "seconds of sound a second": rate}
    key = ("log-mel", str(task), "float32", "cpu", threads)
    return Row(*key, 0, 0, run.peak * threads, 0, run.times, run.ratios, {}, run.disturbed, facts)


def _librosa(task: Task, clips: NDArray[Any]) -> Callable[[], Any]:
    librosa = importlib.import_module("librosa")
    options = {"sr": _RATE, "n_fft": task.n_fft, "hop_length": _HOP, "n_mels": _MELS}
    return lambda: [
        librosa.power_to_db(librosa.feature.melspectrogram(y=clip, **options), top_db=None).T
        for clip in clips
    ]


def _torch(task: Task, clips: NDArray[Any], threads: int) -> Callable[[], Any]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    bins = np.arange(task.n_fft // 2 + 1) * _RATE / task.n_fft
    filters = filter_bank(bins.astype(np.float64), _MELS, 0, _RATE / 2, "slaney", True)
    bank = torch.from_numpy(filters.astype(np.float32))
    window = torch.hann_window(task.n_fft)
    samples = torch.from_numpy(clips)

    def run() -> Any:
        with torch.inference_mode():
            spectrum = torch.stft(
                samples, task.n_fft, _HOP, window=window, pad_mode="constant", return_complex=True
            )
            power = torch.view_as_real(spectrum).square().sum(-1)
            return (10 * torch.log10(torch.clamp(bank @ power, min=1e-10))).transpose(1, 2)

    return run
