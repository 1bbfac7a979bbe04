"""What commands print: JSON, tables, lists of files that were skipped."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stapes.data._types import Skipped

_PIPE_WIDTH = 240
"""Columns to print a table in where stdout is no terminal, so that no cell is cut."""

_SKIPPED_SHOWN = 20
_LARGEST_MATRIX = 15


def print_json(value: Any) -> None:
    """Print one JSON object on stdout; NaN and infinities become null."""
    print(json.dumps(plain(value)), flush=True)


def plain(value: Any) -> Any:
    """Return a tree as strict JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout: the first column to the left, all others to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text, a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def recalls(confusion: npt.NDArray[np.int64]) -> list[float | None]:
    """Return the share of each class's clips that were found, None for classes without clips."""
    counts = confusion.sum(axis=1)
    return [
        float(found / count) if count else None
        for found, count in zip(np.diagonal(confusion), counts, strict=True)
    ]


def print_confusion(classes: Sequence[str], confusion: npt.NDArray[np.int64]) -> None:
    """Print the confusion matrix; of many classes, recall and the most frequent confusions."""
    share = recalls(confusion)
    if len(classes) <= _LARGEST_MATRIX:
        rows = [
            [name, *map(str, counts.tolist()), number(recall)]
            for name, counts, recall in zip(classes, confusion, share, strict=True)
        ]
        title = "Clips by class (rows) and prediction (columns)"
        print_table(title, ["class", *classes, "recall"], rows)
        return
    clips = confusion.sum(axis=1).tolist()
    found = zip(classes, map(str, clips), map(number, share), strict=True)
    print_table("Classes", ["class", "clips", "recall"], [list(row) for row in found])
    wrong = confusion - np.diag(np.diagonal(confusion))
    worst = [
        divmod(int(i), len(classes)) for i in np.argsort(-wrong, axis=None, kind="stable")[:10]
    ]
    lines = [[classes[i], classes[j], str(wrong[i, j])] for i, j in worst if wrong[i, j]]
    if lines:
        print_table("Most frequent confusions", ["class", "taken for", "clips"], lines)


def print_skipped(skipped: Skipped) -> None:
    """List files that were left out, and why."""
    if not skipped:
        return
    print(f"{len(skipped)} files or parts of files were skipped:")
    for entry in skipped[:_SKIPPED_SHOWN]:
        print(f"  {entry['path']}: {entry['reason']}")
    if len(skipped) > _SKIPPED_SHOWN:
        print(f"  and {len(skipped) - _SKIPPED_SHOWN} more")


def print_results(results: dict[str, Any]) -> None:
    """Print what came of a training run."""
    print_skipped(results["skipped"])
    rows = [
        [c["class"], str(c["train_clips"]), str(c["valid_clips"]), number(c["recall"])]
        for c in results["per_class"]
    ]
    print_table("Classes", ["class", "trained on", "validated on", "recall"], rows)
    if results["val_accuracy"] is not None:
        print(f"validation accuracy  {number(results['val_accuracy'])}")
        print(f"balanced accuracy    {number(results['val_balanced_accuracy'])}")
    else:
        print(f"training accuracy    {number(results['accuracy'])} (nothing to validate on)")
    print(f"epochs               {results['epochs']}")
    print(f"seconds              {number(results['seconds'], 1)}")
    print(f"model                {results['model']}")
    for picture in results["pictures"]:
        print(f"picture              {picture}")
