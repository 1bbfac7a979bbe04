"""``stapes train``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stapes.cli._errors import Failure, reported
from stapes.cli._options import Device, FeatureName, Json, ModelName, Precision, Preset


def _check_valid(value: str | None) -> str | None:
    try:
        fraction = float(value or 0)
    except ValueError:
        return value  # a place
    if not 0 <= fraction < 1:
        raise typer.BadParameter(f"a fraction must be at least 0 and below 1, got {value}")
    return value


def _check_positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"must be a positive number, got {value}")
    return value


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder with one folder of sound files for each class; or a folder that holds "
            "train/ (and valid/, test/) with such folders; or a manifest: a CSV table with the "
            "columns path, label and optionally start, end (seconds), group, split.",
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(
            metavar="DATA|FRACTION",
            help="What to validate on: other data, or this share of DATA, split by group and alike "
            "in its classes; 0 trains on everything.",
            show_default="DATA's valid/ where there is one, else 0.15",
            callback=_check_valid,
        ),
    ] = None,
    model: Annotated[
        ModelName | None,
        typer.Option(
            help="The network: cnn (convolutions, pooled over time), seed (two convolutions and "
            "a dense layer), mlp (dense layers).",
            show_default="cnn",
        ),
    ] = None,
    features: Annotated[
        FeatureName | None,
        typer.Option(help="Log-mel spectrogram or MFCC, at 16 kHz.", show_default="logmel"),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(help="Whose conventions the features follow.", show_default="librosa"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the data.", show_default="from the number of clips"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips in a step.", show_default="32")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate; it rises at first, then falls to 0.",
            show_default="0.003",
            callback=_check_positive,
        ),
    ] = None,
    clip_seconds: Annotated[
        float | None,
        typer.Option(
            help="Length of the clips in seconds: longer files are cut into several, shorter ones "
            "padded.",
            show_default="the 95th percentile of the files' lengths, at most 10",
            callback=_check_positive,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of the split, the weights, the order and the augmentation: the same seed gives "
            "the same bits.",
            show_default="0",
        ),
    ] = None,
    device: Annotated[
        Device | None,
        typer.Option(help="auto: CUDA where it can be used.", show_default="auto"),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="fp64 on the CPU only; fp32_split, tf32, bf16 and fp16 on CUDA only.",
            show_default="fp32",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run folder: model, checkpoint, history and metrics.",
            show_default="a new one, runs/NAME-1, runs/NAME-2, ...",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, which was interrupted, with its settings (DATA may "
            "be left out); the result has the same bits as if it had never been.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train anew in an --out that holds a run.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model on sound files.

    \b
    stapes train sounds/                        the defaults are good to begin with
    stapes train sounds/ --valid 0              on everything
    stapes train a.csv --valid b.csv --out runs/birds
    stapes train --out runs/birds --resume      after an interruption
    """  # noqa: D301 - \b keeps the lines apart
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out RUN, the run folder to go on with")
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    if data is None and not resume:
        raise typer.BadParameter("DATA is missing: a folder of class folders, or a manifest")
    with reported():
        from stapes.cli._settings import Settings
        from stapes.cli._training import train_run

        check_device(device)
        given = Settings(
            data=None if data is None else str(data),
            valid=valid,
            model=model and model.value,
            features=features and features.value,
            preset=preset and preset.value,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            clip_seconds=clip_seconds,
            seed=seed,
            device=device and device.value,
            precision=precision and precision.value,
        )
        train_run(given, out, resume=resume, overwrite=overwrite, json=json)


def check_device(device: Device | None) -> None:
    """Raise where CUDA is asked for and cannot be used."""
    from stapes.device import cuda_reason

    if device is Device.cuda and (reason := cuda_reason()) is not None:
        raise Failure(f"--device cuda cannot be used: {reason}")
