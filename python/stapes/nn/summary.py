"""The table that `Sequential.summary` prints."""

from __future__ import annotations

from collections.abc import Iterator

from stapes.nn.chain import _Chain
from stapes.nn.layer import Shape

_HEAD = ("layer", "output shape", "parameters", "MFLOP")
Row = tuple[str, str, str, str]


def summary_text(chain: _Chain, shapes: list[Shape]) -> str:
    """Return the table for a chain that is built; ``shapes`` are those of `_Chain.shapes`."""
    trained = sum(p.size for p in chain.parameters())
    kept = sum(b.size for b in chain.buffers().values())
    rows: list[Row] = [
        ("input", _shape(shapes[0]), "", ""),
        *_rows(chain, shapes, prefix="", indent=""),
    ]
    total: Row = (
        f"total ({len(chain)} layers)",
        _shape(shapes[-1]),
        f"{trained:,}",
        _mega(chain.flops(shapes[0])),
    )
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, total, strict=True)]
    rule = "-" * (sum(widths) + 3 * 2)
    lines = [_line(_HEAD, widths), rule, *(_line(r, widths) for r in rows), rule]
    lines.append(_line(total, widths))
    if kept:
        lines.append(f"and {kept:,} values that are kept but not trained")
    return "\n".join(lines)


def _rows(chain: _Chain, shapes: list[Shape], prefix: str, indent: str) -> Iterator[Row]:
    for i, layer in enumerate(chain.layers):
        parameters = sum(p.size for p in layer.parameters())
        flops = layer.flops(shapes[i])
        name = f"{indent}{prefix}{i} {type(layer).__name__}"
        yield (
            name,
            _shape(shapes[i + 1]),
            f"{parameters:,}" if parameters else "",
            _mega(flops) if flops else "",
        )
        if isinstance(layer, _Chain):
            yield from _rows(layer, layer.shapes(shapes[i]), f"{prefix}{i}.", indent + "  ")


def _line(row: Row, widths: list[int]) -> str:
    padded = [
        cell.rjust(width) if column >= 2 else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _mega(flops: int) -> str:
    return f"{flops / 1e6:,.3f}"
