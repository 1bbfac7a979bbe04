"""``stapes demo``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stapes.cli._errors import Failure, reported, say
from stapes.cli._options import Json

if TYPE_CHECKING:
    from stapes.cli._runs import RunFolder

_CLIPS, _VALID_CLIPS, _EPOCHS, _SEED = 48, 16, 8, 0


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Where the model and the sound go.",
            show_default="a new folder, runs/demo-1, runs/demo-2, ...",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train on a small synthetic set, save model and sound, classify the sound from its file.

    Takes well under a minute and needs no data: the sounds (tones, chirps, noise) are computed.
    """
    with reported():
        from stapes.cli._output import print_json
        from stapes.cli._runs import run_folder

        with run_folder(out, "demo") as run:
            if run.used:
                raise Failure(f"{run.path}: holds a run already; choose another --out")
            results = _demonstrate(run)
        if json:
            print_json(results)
        else:
            _print(results)


def _demonstrate(run: RunFolder) -> dict[str, Any]:
    import numpy as np

    import stapes
    from stapes import audio, models
    from stapes.cli._progress import TrainingBar
    from stapes.cli._synthetic import KINDS, RATE, SECONDS, synthesise
    from stapes.recipe import Recipe
    from stapes.train import CSVLogger, confusion_matrix

    say(
        f"The set is synthetic: {_CLIPS + _VALID_CLIPS} sounds of each of {len(KINDS)} kinds "
        f"({', '.join(KINDS)}), computed now; {_VALID_CLIPS} of each are kept to validate."
    )
    log_mel = audio.LogMel(RATE)
    sounds, y = synthesise(_CLIPS, _SEED)
    valid_sounds, valid_y = synthesise(_VALID_CLIPS, _SEED + 1)
    bands = log_mel(sounds)
    features = audio.Normalized(log_mel, bands.mean(axis=(0, 1)), bands.std(axis=(0, 1)))
    x, valid_x = features(sounds)[..., np.newaxis], features(valid_sounds)[..., np.newaxis]

    model = models.build("cnn", len(KINDS), seed=_SEED)
    recipe = replace(Recipe(), batch_size=16)
    model.compile(recipe.optimizer(_EPOCHS * recipe.steps(len(x))), recipe.loss(y, len(KINDS)))
    with TrainingBar() as bar:
        model.fit(
            x,
            y,
            batch_size=recipe.batch_size,
            epochs=_EPOCHS,
            validation_data=(valid_x, valid_y),
            callbacks=[CSVLogger(run.history), bar],
            seed=_SEED,
            progress=False,
        )
    model.features, model.classes, model.clip_seconds = features, KINDS, SECONDS
    model.save(run.model)
    confusion = confusion_matrix(model.predict(valid_x), valid_y)

    wav = run.path / "sound.wav"
    true = 1
    audio.save(wav, synthesise(1, _SEED + 2)[0][true], RATE)
    (prediction,) = stapes.load(run.model).predict_files([wav])
    return {
        "synthetic": True,
        "model": str(run.model),
        "classes": KINDS,
        "epochs": _EPOCHS,
        "accuracy": float(np.trace(confusion) / len(valid_y)),
        "confusion": confusion,
        "seconds": bar.seconds,
        "sound": {"path": str(wav), "is": KINDS[true], "predicted": prediction},
    }


def _print(results: dict[str, Any]) -> None:
    from stapes.cli._output import number, print_confusion

    print_confusion(results["classes"], results["confusion"])
    print(f"accuracy  {number(results['accuracy'])} on synthetic sounds not trained on")
    print(f"seconds   {number(results['seconds'], 1)} of training, {results['epochs']} epochs")
    print(f"model     {results['model']}")
    sound = results["sound"]
    found = sound["predicted"]
    print(f"sound     {sound['path']} (a {sound['is']})")
    print(f"\nThe model, loaded from its file, hears in {sound['path']}:")
    print(f"          {found['class']}, probability {number(found['probability'])}")
    print("\nThe same from the command line:")
    print(f"          stapes predict {results['model']} {sound['path']}")
