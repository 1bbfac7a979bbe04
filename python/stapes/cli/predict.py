"""``stapes predict``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stapes.cli._errors import Failure, reported, say
from stapes.cli._options import Json


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model.safetensors, or a run folder.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Sound files.")],
    windows: Annotated[
        bool,
        typer.Option(
            "--windows",
            help="Also one line for each stretch of a file as long as the clips that the model was "
            "trained on: its begin and end in seconds, class, probability.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Classify sound files: file, class and probability.

    A long file's probabilities are the means of its windows'. Where files cannot be read the others
    are classified all the same, and the exit status is 1.

    Example: stapes predict runs/birds-1/model.safetensors recordings/*.wav
    """
    with reported():
        from stapes.cli._output import print_json

        found = []
        width = max(len(str(path)) for path in files)
        for result in _predictions(model, files, windows):
            found.append(result)
            if not json:
                _print(result, width)
        if json:
            print_json({"files": found})
        if failed := sum(result["error"] is not None for result in found):
            raise Failure(f"{failed} of {len(found)} files could not be read")


def _predictions(path: Path, files: list[Path], windows: bool) -> Iterator[dict[str, Any]]:
    from stapes.cli._models import load_model

    model = load_model(path)
    for file in files:
        yield from model.predict_files([file], windows=windows)


def _print(result: dict[str, Any], width: int) -> None:
    path = result["path"]
    if result["error"] is not None:
        say(result["error"] if path in result["error"] else f"{path}: {result['error']}")
        return
    print(f"{path:{width}}  {result['class']}  {result['probability']:.3f}", flush=True)
    for window in result.get("windows") or ():
        span = f"{window['start']:9.2f} - {window['end']:.2f} s"
        print(f"  {span}  {window['class']}  {window['probability']:.3f}", flush=True)
