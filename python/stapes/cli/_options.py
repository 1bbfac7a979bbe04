"""Choices and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class ModelName(StrEnum):
    """Networks of `stapes.models`."""

    cnn = "cnn"
    seed = "seed"
    mlp = "mlp"


class FeatureName(StrEnum):
    """Features of `stapes.audio`."""

    logmel = "logmel"
    mfcc = "mfcc"


class Preset(StrEnum):
    """Whose conventions the features follow."""

    librosa = "librosa"
    torchaudio = "torchaudio"
    kaldi = "kaldi"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Number formats of `Sequential.compile`."""

    fp32 = "fp32"
    fp64 = "fp64"
    fp32_split = "fp32_split"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout; progress stays on stderr."),
]
