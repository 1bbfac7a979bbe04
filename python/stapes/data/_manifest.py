"""A table of sound files, or of parts of them."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TypeAlias

from stapes.audio import Features
from stapes.data._dataset import AudioData
from stapes.data._folder import check_names
from stapes.data._types import Clip

Filter: TypeAlias = Mapping[str, str | Sequence[str]]
_Row: TypeAlias = dict[str, str]


class Manifest(AudioData):
    """Sound files listed in a CSV table, with their labels.

    The table is UTF-8, separated by commas, with a line of column names. Columns: ``path``
    (relative to the table's folder, or absolute) and ``label``; optional ``start`` and ``end``
    (seconds: the part of the file to use; an empty cell means its beginning or end, and an end
    beyond the file's is the file's), the column named by ``group``, and any others, for ``filter``.
    A file may be in several rows.

    Parameters
    ----------
    csv : path
        The table.
    features, clip_seconds, cache_dir, progress, missing_ok
        As in `AudioFolder`.
    classes : sequence of str, optional
        Names and order of the classes. Default: the labels of the rows used, sorted. A label that
        is not among them is an error.
    filter : mapping of str to str (or to a sequence of str), optional
        Only rows with these values are used: ``{"split": "train"}``.
    group : str, optional
        Column that tells which samples belong together in a split. Where it is empty, or there is
        no column "group", each file is a group of its own. None: do so everywhere.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the table cannot be opened.
    ValueError
        If the table is not UTF-8 or not a table, a column is missing, a cell is wrong (the message
        names the line), no row is left by ``filter``, or a class has no readable file.
    OSError
        If the cache cannot be written.
    """

    def __init__(
        self,
        csv: str | os.PathLike[str],
        *,
        features: Features,
        clip_seconds: float | None = None,
        filter: Filter | None = None,
        group: str | None = "group",
        classes: Sequence[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        missing_ok: bool = False,
    ) -> None:
        table = Path(csv)
        clips = _clips(table, filter or {}, group)
        found = sorted({clip.label for clip in clips})
        names = found if classes is None else check_names(classes)
        if unknown := sorted(set(found) - set(names)):
            raise ValueError(f"{table}: labels that are not among the classes {names}: {unknown}")
        super().__init__(
            clips,
            names,
            features=features,
            clip_seconds=clip_seconds,
            cache_dir=cache_dir,
            progress=progress,
            missing_ok=missing_ok,
        )
        self.table = table


def manifest_values(path: str | os.PathLike[str], column: str) -> set[str]:
    """Return the values of a column of a manifest; none where there is no such column.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, ValueError
        As `Manifest`.
    """
    return {row[column] for _, row in _rows(Path(path)) if column in row}


def _clips(table: Path, wanted: Filter, group: str | None) -> list[Clip]:
    rows = list(_rows(table))
    columns = list(rows[0][1]) if rows else []
    needed = ["path", "label", *wanted]
    if group not in (None, "group"):
        needed.append(str(group))
    if missing := [name for name in needed if name not in columns]:
        raise ValueError(f"{table}: no column {', '.join(missing)}; found {columns}")
    clips = [_clip(table, line, row, group) for line, row in rows if _matches(row, wanted)]
    if not clips:
        values = {name: sorted({row[name] for _, row in rows})[:10] for name in wanted}
        raise ValueError(f"{table}: no rows with {dict(wanted)}; the values there are {values}")
    return clips


def _rows(table: Path) -> Iterator[tuple[int, _Row]]:
    """Yield the number of the line at which a row ends, and its cells by column."""
    lines = csv.reader(StringIO(_text(table), newline=""), strict=True)
    try:
        columns = next(lines, None)
        if not columns:
            raise ValueError(f"{table}: no line of column names: the table is empty")
        columns = [name.strip() for name in columns]
        if len(set(columns)) < len(columns):
            raise ValueError(f"{table}, line 1: a column is there twice: {columns}")
        empty = True
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            empty = False
            if len(cells) != len(columns):
                found = f"{len(cells)} cells, but {len(columns)} columns"
                raise ValueError(f"{table}, line {lines.line_num}: {found}")
            yield lines.line_num, dict(zip(columns, map(str.strip, cells), strict=True))
        if empty:
            raise ValueError(f"{table}: no rows below the column names")
    except csv.Error as error:
        raise ValueError(f"{table}, line {lines.line_num}: {error}") from None


def _text(table: Path) -> str:
    content = table.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{table}, line {line}: not UTF-8") from None


def _matches(row: _Row, wanted: Filter) -> bool:
    return all(
        row[name] == value if isinstance(value, str) else row[name] in value
        for name, value in wanted.items()
    )


def _clip(table: Path, line: int, row: _Row, group: str | None) -> Clip:
    for name in ("path", "label"):
        if not row[name]:
            raise ValueError(f"{table}, line {line}: {name} is empty")
    start = _seconds(table, line, row, "start", 0.0)
    end = _seconds(table, line, row, "end", math.inf)
    if end <= start:
        raise ValueError(f"{table}, line {line}: end ({end:g}) must be after start ({start:g})")
    own = "" if group is None else row.get(group, "")
    return Clip(table.parent / row["path"], row["label"], own or row["path"], start, end)


def _seconds(table: Path, line: int, row: _Row, name: str, default: float) -> float:
    text = row.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{table}, line {line}: {name} must be seconds, 0 or more; got {text!r}")
    return value
