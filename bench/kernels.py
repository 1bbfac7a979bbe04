"""The README's table: convolution kernels beside PyTorch's, in percent of the core's FMA peak.

    python bench/kernels.py [--threads 1] [--seconds 1] [--peer torch,torch-nchw] [--json FILE]

A view of `stapes bench ops`, which measures more operators, other shapes and types. Percentages
count the dense convolution's operations alone: kernels that leave some out may exceed 100. wgrad
includes the bias gradient on both sides; PyTorch has the faster of its two layouts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import stapes
from stapes.bench import peers, report, suite
from stapes.bench.allocator import restart
from stapes.bench.machine import host
from stapes.bench.shapes import SHAPES, ConvCase
from stapes.bench.timing import OURS

TABLES = {
    "layer": ("conv2d_fwd", "conv2d_dgrad", "conv2d_wgrad"),
    "with ReLU and 2x2 max pooling": (
        "conv2d_relu_max_pool2d_fwd",
        "conv2d_relu_max_pool2d_bwd",
    ),
}


def title(case: ConvCase) -> str:
    """Return what the layer is, in words."""
    _, H, W, C = case.x
    K, R, S, _ = case.w
    kind = " depthwise" if case.groups == C else f" in {case.groups} groups"
    stride = "" if case.stride == 1 else f" stride {case.stride}"
    return f"C{C} {H}x{W} -> {K}{kind if case.groups > 1 else ''}, {R}x{S}{stride}"


def cell(row: report.Row | None) -> str:
    """Return percent of the peak, ours and the peer's, and the ratio of the times."""
    if row is None:
        return "-"

    def percent(name: str) -> str:
        return f"{100 * row.flops / row.times[name].median / row.peak:.0f}"

    mark = " (disturbed)" if row.disturbed else ""
    if row.best_peer is None:
        return percent(OURS) + mark
    return f"{percent(OURS)} / {percent(row.best_peer)} ({report.ratio_text(row)}){mark}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each kernel and shape")
    parser.add_argument("--peer", help="programs to compare with, '' for none")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    restart(args.threads)
    stapes.set_num_threads(args.threads)
    settings = suite.Settings(
        "float32", "cpu", args.threads, peers.chosen(args.peer, args.threads), args.seconds
    )
    machine = host(args.threads)
    result = report.Result(machine, shlex.join(sys.argv), [])
    print(report.heading(machine))
    for name, ops in TABLES.items():
        print(f"\n| {name} | {' | '.join(ops)} |\n|{'---|' * (len(ops) + 1)}")
        work = suite.plan(ops, [])
        for case in [case for case in SHAPES if any(case == taken for _, taken in work)]:
            rows = {op: suite.measure(op, case, settings, machine) for op, on in work if on == case}
            result.rows.extend(rows.values())
            print(f"| {title(case)} | {' | '.join(cell(rows.get(op)) for op in ops)} |", flush=True)
    if args.json:
        report.save(result, args.json)


if __name__ == "__main__":
    main()
