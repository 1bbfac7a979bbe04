"""What ``stapes train`` does: data, model, training, results, in a run folder."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stapes import __version__, models
from stapes.cli._data import find, make_features, needed, set_name
from stapes.cli._errors import Failure, say
from stapes.cli._output import print_json, print_results, recalls
from stapes.cli._progress import TrainingBar
from stapes.cli._runs import RunFolder, read_json, run_folder, write_json
from stapes.cli._settings import Settings
from stapes.data import AudioData, Augmented
from stapes.data._types import Skipped
from stapes.nn import Sequential
from stapes.recipe import Recipe

_VALID = "0.15"
_CHECKPOINT_STEPS = 250
"""Epochs that are longer than this have checkpoints in their middle too."""


@dataclass(frozen=True)
class Parts:
    """The data of a run, normalised by what was measured on its first part."""

    train: AudioData
    valid: AudioData | None

    @property
    def skipped(self) -> Skipped:
        """Files of both parts that could not be used."""
        both = [*self.train.skipped, *(self.valid.skipped if self.valid else [])]
        return list({(s["path"], s["reason"]): s for s in both}.values())

    @property
    def digest(self) -> list[str | None]:
        """What tells whether it is the same data."""
        return [self.train.digest(), self.valid.digest() if self.valid else None]


def train_run(
    given: Settings, out: Path | None, *, resume: bool, overwrite: bool, json: bool
) -> None:
    """Train in a run folder, and print the results."""
    if given.data is not None:
        needed(Path(given.data), "train")  # a wrong DATA leaves no run folder behind
    with run_folder(out, set_name(Path(given.data or "run"))) as run:
        kept: dict[str, Any] = {}
        if resume and run.settings.exists():
            kept = read_json(run.settings)
            given = given.resumed(kept["settings"], run.path)
        elif resume and given.data is None:
            raise Failure(f"{run.path}: holds no run to resume; to begin one, name DATA")
        elif run.used and not overwrite:
            what = "a finished" if run.finished else "an unfinished"
            raise Failure(
                f"{run.path}: holds {what} run: go on with it by --resume, replace it by "
                "--overwrite, or choose another --out"
            )
        if resume and run.finished:
            say(f"{run.path}: this run is finished already")
            results = read_json(run.metrics)
        else:
            results = _train(given.with_defaults(), kept, run)
        if json:
            print_json({name: results[name] for name in _KEYS})
        else:
            print_results(results)


_KEYS = (
    *("model", "classes", "epochs", "loss", "accuracy", "val_loss", "val_accuracy"),
    *("val_balanced_accuracy", "seconds", "skipped"),
)


def _train(settings: Settings, kept: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    parts = _open(settings)
    recipe = Recipe()
    recipe = replace(
        recipe,
        batch_size=settings.batch_size or recipe.batch_size,
        lr=settings.lr or recipe.lr,
    )
    settings = replace(
        settings,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        epochs=settings.epochs or recipe.epochs(len(parts.train)),
        clip_seconds=parts.train.clip_seconds,
    )
    model = _build(settings, recipe, parts.train)
    kept_settings = settings.with_full_paths().config()  # to be resumed from anywhere
    begun = {"settings": kept_settings, "data": parts.digest, "recipe": recipe.config()}
    if kept:
        _check_same(begun, kept, run)
    else:
        run.clear()
        write_json(run.settings, {**begun, "versions": _versions()})
    bar = _fit(model, settings, recipe, parts, run)
    model.save(run.model)
    return _finish(model, settings, parts, run, bar.seconds)


def _open(settings: Settings) -> Parts:
    """Open the data, split it, and normalise both parts by the first."""
    assert settings.data and settings.features and settings.preset and settings.seed is not None
    path = Path(settings.data)
    features = make_features(settings.features, settings.preset)
    data = needed(path, "train").open(features, clip_seconds=settings.clip_seconds)
    if len(data.classes) < 2:
        raise Failure(f"{path}: one class only ({data.classes[0]}): there must be two or more")
    place, fraction = _validation(settings.valid, path)
    valid: AudioData | None = None
    if place is not None:
        valid = place.open(
            features,
            clip_seconds=data.clip_seconds,
            classes=data.classes,
            missing_ok=True,
        )
    elif fraction:
        try:
            data, valid = data.split(fraction, seed=settings.seed)
        except ValueError as error:
            raise Failure(f"{path}: {error} (--valid 0 trains on everything)") from None
        valid.skipped = []  # they are in the first part's list
    mean, std = data.statistics()
    return Parts(data.normalized(mean, std), valid and valid.normalized(mean, std))


def _validation(valid: str | None, path: Path) -> tuple[Any, float]:
    """Return where to validate, or the share of the data to split off."""
    if valid is None:
        place = find(path, "valid")
        separate = place is not None and place != find(path, "train")
        return (place, 0.0) if separate else (None, float(_VALID))
    try:
        return None, float(valid)
    except ValueError:
        place = find(Path(valid), "valid")
        return place or needed(Path(valid), "test"), 0.0


def _check_same(begun: dict[str, Any], kept: dict[str, Any], run: RunFolder) -> None:
    versions = _versions()
    if kept["versions"]["stapes"] != versions["stapes"]:
        was = kept["versions"]["stapes"]
        raise Failure(f"{run.path}: begun by Stapes {was}; this is {versions['stapes']}")
    if begun["data"] != kept["data"]:
        raise Failure(
            f"{run.path}: cannot be resumed: the data is not what it was when the run began"
        )


def _build(settings: Settings, recipe: Recipe, data: AudioData) -> Sequential:
    assert settings.model and settings.epochs and settings.precision and settings.device
    clip_samples = max(1, round(data.clip_seconds * data.features.sample_rate))
    model = models.build(settings.model, len(data.classes), seed=settings.seed)
    model.build((data.features.frames(clip_samples), data.features.bands, 1))
    model.compile(
        recipe.optimizer(settings.epochs * recipe.steps(len(data))),
        recipe.loss(data.labels, len(data.classes)),
        ("accuracy", "balanced_accuracy"),
        device=settings.device,
        precision=settings.precision,
    )
    return model


def _fit(
    model: Sequential, settings: Settings, recipe: Recipe, parts: Parts, run: RunFolder
) -> TrainingBar:
    """Train; after Ctrl-C save what was trained, and pass it on with words of what to do."""
    from stapes.train import Checkpoint, CSVLogger

    assert settings.epochs and settings.seed is not None
    say(_announcement(settings, parts, run))
    with TrainingBar() as bar:
        try:
            model.fit(
                Augmented(parts.train, recipe.augment),
                batch_size=recipe.batch_size,
                epochs=settings.epochs,
                validation_data=parts.valid,
                callbacks=[
                    CSVLogger(run.history),
                    bar,
                    Checkpoint(run.checkpoint, every_steps=_CHECKPOINT_STEPS),
                ],
                seed=settings.seed,
                progress=False,
                resume=run.checkpoint if run.checkpoint.exists() else None,
            )
        except KeyboardInterrupt:
            again = f"stapes train --out {run.path} --resume"
            if not bar.step:
                raise KeyboardInterrupt(f"Interrupted; begin again with: {again}") from None
            model.save(run.model)
            raise KeyboardInterrupt(
                f"Interrupted at step {bar.step}. The model so far is {run.model}; "
                f"go on with: {again}"
            ) from None
    return bar


def _announcement(settings: Settings, parts: Parts, run: RunFolder) -> str:
    data, valid = parts.train, parts.valid
    validation = f", {len(valid)} to validate" if valid else ""
    going_on = "going on with" if run.checkpoint.exists() else "training in"
    return (
        f"{len(data)} clips of {data.clip_seconds:.2f} s in {len(data.classes)} classes"
        f"{validation}; model {settings.model}, {settings.epochs} epochs; {going_on} {run.path}"
    )


def _finish(
    model: Sequential, settings: Settings, parts: Parts, run: RunFolder, seconds: float
) -> dict[str, Any]:
    """Measure each class, draw the report, write metrics.json."""
    from stapes.cli._report import draw
    from stapes.train import confusion_matrix

    assert model.history is not None
    history = model.history.history
    last = {name: values[-1] for name, values in history.items()}
    confusion = None
    if parts.valid is not None:
        confusion = confusion_matrix(model.predict(parts.valid), parts.valid.labels)
    results: dict[str, Any] = {
        "model": str(run.model),
        "classes": parts.train.classes,
        "epochs": len(model.history.epochs),
        **{name: last[name] for name in ("loss", "accuracy")},
        **{name: last.get(name) for name in ("val_loss", "val_accuracy", "val_balanced_accuracy")},
        "seconds": seconds,
        "skipped": parts.skipped,
        "per_class": _per_class(parts, confusion),
        "confusion": confusion,
        "settings": settings.config(),
        "versions": _versions(),
    }
    results["pictures"] = [
        str(path) for path in draw(run.path, parts.train.classes, results, history)
    ]
    write_json(run.metrics, results)
    return results


def _per_class(parts: Parts, confusion: Any) -> list[dict[str, Any]]:
    found = [None] * len(parts.train.classes) if confusion is None else recalls(confusion)
    return [
        {
            "class": name,
            "train_clips": int((parts.train.labels == label).sum()),
            "valid_clips": int((parts.valid.labels == label).sum()) if parts.valid else 0,
            "recall": found[label],
        }
        for label, name in enumerate(parts.train.classes)
    ]


def _versions() -> dict[str, str]:
    import numpy as np
    import soundfile
    import soxr

    from stapes import _core

    return {
        "stapes": __version__,
        "isa": _core.isa(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
    }
