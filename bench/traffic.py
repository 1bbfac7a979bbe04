"""Bytes that a training step moves to and from device memory, a sample, computed from the shapes.

    python bench/traffic.py [--size 64] [--channels 3] [--bytes 4] [--batch 32]

The seed network (models.build("seed", 10)), each operator reading its inputs once and writing its
outputs once: as separate operators, which is what an eager framework runs, and as Stapes runs it,
with convolution, bias, ReLU and 2x2 max pooling in one kernel, forward and backward. Weights are
counted a batch, divided by its size. Nothing is measured here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

CLASSES = 10
INDEX = 8  # bytes of an index of max pooling in PyTorch; Stapes' are 1


@dataclass(frozen=True)
class Row:
    """What one operator moves, in elements a sample, but for what is bytes already."""

    name: str
    eager: float
    fused: float


def conv_block(name: str, size: int, c: int, k: int, e: int, n: int, first: bool) -> list[Row]:
    """Return the rows of conv 3x3 same + bias + ReLU + max pool 2."""
    x, y, pooled = size * size * c * e, size * size * k * e, size * size * k * e // 4
    places, w = size * size * k // 4, 9 * c * k * e / n
    forward = [
        ("convolution and bias", x + w + y),
        ("ReLU", 2 * y),
        ("max pooling", y + pooled + INDEX * places),
    ]
    backward = [
        ("max pooling", pooled + INDEX * places + y),
        ("ReLU", 3 * y),
        ("wgrad", x + y + w),
        ("bgrad", y),
    ]
    fused_backward = pooled + places + x + w  # wgrad and bgrad, from the pooled gradient
    if not first:
        backward.append(("dgrad", y + w + x))
        fused_backward += pooled + places + w + x
    return [
        Row(f"{name} fwd: {', '.join(part for part, _ in forward)}", sum(b for _, b in forward),
            x + w + pooled + places),
        Row(f"{name} bwd: {', '.join(part for part, _ in backward)}", sum(b for _, b in backward),
            fused_backward),
    ]  # fmt: skip


def dense(name: str, c: int, k: int, e: int, n: int, relu: bool) -> list[Row]:
    """Return the rows of a dense layer."""
    x, y, w = c * e, k * e, c * k * e / n
    activation_fwd, activation_bwd = (2 * y, 3 * y) if relu else (0, 0)
    backward = (x + y + w) + (y + w + x) + y
    return [
        Row(f"{name} fwd", x + w + y + activation_fwd, x + w + y),
        Row(f"{name} bwd", backward + activation_bwd, backward + activation_bwd),
    ]


def optimizer(weights: int, n: int) -> list[Row]:
    """Return the row of Adam: parameter, both moments read and written, the gradient read."""
    moved = 7 * 4 * weights / n
    return [Row("Adam", moved, moved)]


def rows(size: int, channels: int, e: int, n: int) -> list[Row]:
    """Return all rows of the seed network."""
    features = (size // 4) ** 2 * 64
    weights = (
        9 * channels * 32 + 32 + 9 * 32 * 64 + 64 + features * 64 + 64 + 64 * CLASSES + CLASSES
    )
    return [
        *conv_block("conv1", size, channels, 32, e, n, first=True),
        *conv_block("conv2", size // 2, 32, 64, e, n, first=False),
        *dense("dense1", features, 64, e, n, relu=True),
        *dense("dense2", 64, CLASSES, e, n, relu=False),
        *optimizer(weights, n),
    ]


def table(found: list[Row]) -> str:
    """Return a Markdown table in KiB a sample."""
    lines = ["| | eager, KiB | fused, KiB | ratio |", "|---|---|---|---|"]
    total = Row("**sum**", sum(r.eager for r in found), sum(r.fused for r in found))
    for r in [*found, total]:
        lines.append(
            f"| {r.name} | {r.eager / 1024:.0f} | {r.fused / 1024:.0f} | {r.eager / r.fused:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64, help="height and width of the input")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=4, choices=[2, 4], help="of an activation")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    print(table(rows(args.size, args.channels, args.bytes, args.batch)))


if __name__ == "__main__":
    main()
