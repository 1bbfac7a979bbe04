"""Seconds an epoch of a ready-made network beside PyTorch's for the same network and weights.

    python bench/epoch.py [--model cnn] [--threads 1] [--seconds 5] [--json FILE]

Each step is forward, softmax cross-entropy, backward and optimizer on a batch of 32 in memory:
no decoding, no augmentation. Both start from the same weights, and the table shows the largest
difference of their outputs before the first step. PyTorch runs channels_last with fused AdamW.
Steps are interleaved; an epoch is the median step times their number.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import stapes
from stapes import models, optim
from stapes.bench.torch_network import convert

BATCH = 32
SHAPES = [  # clips, frames, classes
    (660, 201, 2),
    (648, 201, 9),
    (1452, 61, 4),
    (272, 76, 7),
]
BANDS = 64


def compare(name: str, shape: tuple[int, int, int], seconds: float, torch: Any) -> dict[str, float]:
    """Time one shape; milliseconds a step of both, and how far their outputs lie apart."""
    clips, frames, classes = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, frames, BANDS, 1), dtype=np.float32)
    y = rng.integers(0, classes, BATCH)
    ours = models.build(name, classes, seed=0)
    ours.build(x.shape[1:])
    theirs = convert(ours).to(memory_format=torch.channels_last)
    tx = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    ty = torch.from_numpy(y)
    difference = np.abs(ours.eval().forward(x) - theirs.eval()(tx).detach().numpy()).max()
    theirs.train()
    ours.compile(optim.AdamW(lr=3e-3))
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-3, fused=True)

    def torch_step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(tx), ty).backward()
        optimizer.step()

    steps = {"stapes": lambda: ours.train_on_batch(x, y), "torch": torch_step}
    times: dict[str, list[float]] = {peer: [] for peer in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["torch"]) < 10:
        for peer, step in steps.items():
            start = time.perf_counter()
            step()
            times[peer].append(time.perf_counter() - start)
    result = {peer: statistics.median(t[2:]) for peer, t in times.items()}
    return result | {"steps": -(-clips // BATCH), "difference": float(difference)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="cnn", choices=models.NAMES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each shape")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    torch = importlib.import_module("torch")
    torch.set_num_threads(args.threads)
    stapes.set_num_threads(args.threads)
    print(f"{args.model}, {args.threads} thread(s), torch {torch.__version__}\n")
    print(
        "| clips x frames, classes | stapes s/epoch | torch s/epoch | ratio | outputs differ by |"
    )
    print("|---|---|---|---|---|")
    results = []
    for shape in SHAPES:
        r = compare(args.model, shape, args.seconds, torch)
        results.append({"shape": shape, **r})
        ours, theirs = r["stapes"] * r["steps"], r["torch"] * r["steps"]
        print(
            f"| {shape[0]} x {shape[1]}, {shape[2]} | {ours:.2f} | {theirs:.2f}"
            f" | {theirs / ours:.2f} | {r['difference']:.1e} |",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
