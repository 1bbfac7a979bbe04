"""Pictures of a training run: the confusion matrix and the learning curves."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stapes._files import atomic_write
from stapes.cli._errors import say

_MOST_NUMBERS = 30
"""With more classes than this, the cells of the matrix hold no numbers."""


def draw(
    folder: Path,
    classes: Sequence[str],
    results: Mapping[str, Any],
    history: Mapping[str, Sequence[float]],
) -> list[Path]:
    """Write ``confusion.png`` (where there was a validation) and ``curves.png``.

    Without matplotlib nothing is drawn, and a line on stderr tells how to get it.

    Returns
    -------
    list of path
        What was written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        say("No pictures: matplotlib is not installed (pip install 'stapes[report]')")
        return []
    written = []
    if results["confusion"] is not None:
        path = folder / "confusion.png"
        _write(path, _confusion(classes, np.asarray(results["confusion"])))
        written.append(path)
    path = folder / "curves.png"
    _write(path, _curves(history))
    return [*written, path]


def _confusion(classes: Sequence[str], counts: Any) -> Any:
    from matplotlib.figure import Figure

    n = len(classes)
    size = float(np.clip(2.5 + 0.55 * n, 4.5, 20))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class's clips", shrink=0.8)
    axes.set_xticks(range(n), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), classes)
    axes.set(xlabel="predicted class", ylabel="true class", title="Validation clips")
    if n <= _MOST_NUMBERS:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=9)
    return figure


def _curves(history: Mapping[str, Sequence[float]]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "training (augmented)"), (f"val_{name}", "validation")):
            if key in history:
                values = history[key]
                marker = "o" if len(values) == 1 else None
                axes.plot(range(1, len(values) + 1), values, marker=marker, label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _write(path: Path, figure: Any) -> None:
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=120)
    with atomic_write(path) as file:
        file.write(encoded.getbuffer())
