"""``stapes evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stapes.cli._errors import reported
from stapes.cli._options import Json


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model.safetensors, or a run folder.")
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of class folders or a manifest; where it holds train/, its test/ is "
            "read. It may lack some of the model's classes.",
        ),
    ],
    json: Json = False,
) -> None:
    """Measure a model on labelled sound files: accuracy and confusion matrix.

    Each clip counts once; a file longer than the clips that the model was trained on gives several.
    Balanced accuracy is the mean, over the classes there, of the share of their clips found.

    Example: stapes evaluate runs/birds-1/model.safetensors birds/
    """
    with reported():
        from stapes.cli import _output

        results = _evaluate(model, data)
        if json:
            _output.print_json(results)
            return
        _output.print_skipped(results["skipped"])
        _output.print_confusion(results["classes"], results["confusion"])
        print(f"clips              {results['clips']}")
        print(f"loss               {_output.number(results['loss'], 4)}")
        print(f"accuracy           {_output.number(results['accuracy'])}")
        print(f"balanced accuracy  {_output.number(results['balanced_accuracy'])}")


def _evaluate(path: Path, where: Path) -> dict[str, Any]:
    import numpy as np

    from stapes.cli._data import needed
    from stapes.cli._models import load_model
    from stapes.cli._output import recalls
    from stapes.train import confusion_matrix

    place = needed(where, "test")
    model = load_model(path)
    data = place.open(
        model.features,
        clip_seconds=model.clip_seconds,
        classes=model.classes,
        missing_ok=True,
    )
    probabilities = np.asarray(model.predict(data), np.float64)
    confusion = confusion_matrix(probabilities, data.labels)
    true = probabilities[np.arange(len(data)), data.labels]
    found = [recall for recall in recalls(confusion) if recall is not None]
    return {
        "loss": float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean()),
        "accuracy": float(np.trace(confusion) / len(data)),
        "balanced_accuracy": float(np.mean(found)),
        "classes": list(data.classes),
        "confusion": confusion,
        "clips": len(data),
        "skipped": data.skipped,
    }
