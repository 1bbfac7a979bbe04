"""Convolution kernels beside PyTorch's: percent of the core's FMA peak, measured in the same run.

    python bench/kernels.py [--threads 1] [--seconds 1] [--only TEXT] [--json FILE]

PyTorch runs in its faster layout, channels_last, on the same arrays; wgrad includes the bias
gradient on both sides. The second table is of convolutions with ReLU and 2x2 max pooling behind
them: all three forward, and all of them backward (a first layer has no dgrad). There a percentage
counts the dense convolution's operations alone, and so may exceed 100. Times are medians of
interleaved repeats.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import stapes
from stapes import _core, ops
from timing import interleave

Functions = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """A convolution of N images (H, W, C) to K channels with an (R, S) kernel."""

    name: str
    H: int
    W: int
    C: int
    K: int
    R: int = 3
    S: int = 3
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    groups: int = 1
    N: int = 32

    def flops(self, y: np.ndarray) -> int:
        """Count the floating-point operations of one direction."""
        return 2 * y.size * (self.C // self.groups) * self.R * self.S


CASES = [
    Case("C3 64x64 -> 32, 3x3", 64, 64, 3, 32),
    Case("C1 64x64 -> 32, 3x3", 64, 64, 1, 32),
    Case("C32 32x32 -> 64, 3x3", 32, 32, 32, 64),
    Case("C64 16x16 -> 128, 3x3", 16, 16, 64, 128),
    Case("C128 8x8 -> 128, 3x3", 8, 8, 128, 128),
    Case("C64 16x16 -> 64, 1x1", 16, 16, 64, 64, 1, 1, padding=(0, 0)),
    Case("C64 16x16 depthwise 3x3", 16, 16, 64, 64, groups=64),
    Case("C1 1x16000 -> 64, 1x80 stride 4", 1, 16000, 1, 64, 1, 80, (1, 4), (0, 0)),
]


FUSED = CASES[:4]


def stapes_functions(case: Case, a: dict[str, np.ndarray]) -> Functions:
    """Return the three directions, into arrays that are there already."""
    geometry: Any = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    x, w, b, y, dy = a["x"], a["w"], a["b"], a["y"], a["dy"]
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty_like(b)

    def wgrad() -> None:
        ops.conv2d_wgrad(dy, x, w.shape, **geometry, out=dw)
        ops.conv2d_bgrad(dy, out=db)

    return {
        "fwd": lambda: ops.conv2d_fwd(x, w, b, **geometry, out=y),
        "dgrad": lambda: ops.conv2d_dgrad(dy, w, x.shape, **geometry, out=dx),
        "wgrad": wgrad,
    }


def torch_functions(case: Case, a: dict[str, np.ndarray], torch: Any) -> Functions:
    """Return the same work in PyTorch, channels_last."""
    x, w, dy = (torch.from_numpy(a[name]).permute(0, 3, 1, 2) for name in ("x", "w", "dy"))
    w = w.contiguous(memory_format=torch.channels_last)
    b = torch.from_numpy(a["b"])
    back = torch.ops.aten.convolution_backward
    args = ([case.K], case.stride, case.padding, [1, 1], False, [0, 0], case.groups)

    def fwd() -> object:
        conv = torch.nn.functional.conv2d
        with torch.inference_mode():
            return conv(x, w, b, case.stride, case.padding, groups=case.groups)

    return {
        "fwd": fwd,
        "dgrad": lambda: back(dy, x, w, *args, [True, False, False]),
        "wgrad": lambda: back(dy, x, w, *args, [False, True, True]),
    }


def run_case(case: Case, seconds: float, torch: Any) -> dict[str, dict[str, float]]:
    """Time a case: {direction: {peer: seconds, "peak": FLOP/s of a core, "flops": count}}."""
    rng = np.random.default_rng(0)
    w_shape = (case.K, case.R, case.S, case.C // case.groups)
    a = {
        "x": rng.standard_normal((case.N, case.H, case.W, case.C), dtype=np.float32),
        "w": rng.standard_normal(w_shape, dtype=np.float32),
        "b": rng.standard_normal(case.K, dtype=np.float32),
    }
    a["y"] = ops.conv2d_fwd(
        a["x"], a["w"], a["b"], stride=case.stride, padding=case.padding, groups=case.groups
    )
    a["dy"] = rng.standard_normal(a["y"].shape, dtype=np.float32)
    peers = {"stapes": stapes_functions(case, a)}
    if torch is not None:
        peers["torch"] = torch_functions(case, a, torch)
    return {
        name: interleave({peer: f[name] for peer, f in peers.items()}, seconds=seconds)
        | {"flops": case.flops(a["y"])}
        for name in ("fwd", "dgrad", "wgrad")
    }


def fused_stapes(case: Case, a: dict[str, np.ndarray]) -> Functions:
    """Return convolution, ReLU and pooling, forward and backward."""
    x, w, b, dy, y, argmax = (a[name] for name in ("x", "w", "b", "dy", "y", "argmax"))
    geometry: Any = {"stride": case.stride, "padding": case.padding, "need_dx": case.C > 3}
    fwd_out = np.empty_like(y), np.empty_like(argmax)
    bwd_out = (np.empty_like(x) if case.C > 3 else None, np.empty_like(w), np.empty_like(b))
    return {
        "fwd": lambda: ops.conv2d_relu_max_pool2d_fwd(
            x, w, b, stride=case.stride, padding=case.padding, out=fwd_out
        ),
        "bwd": lambda: ops.conv2d_relu_max_pool2d_bwd(dy, argmax, x, w, **geometry, out=bwd_out),
    }


def fused_torch(case: Case, a: dict[str, np.ndarray], torch: Any) -> Functions:
    """Return the same work in PyTorch, operator by operator as its autograd would call them."""
    aten, conv = torch.ops.aten, torch.nn.functional.conv2d
    x, w, dy = (torch.from_numpy(a[name]).permute(0, 3, 1, 2) for name in ("x", "w", "dy"))
    w = w.contiguous(memory_format=torch.channels_last)
    b = torch.from_numpy(a["b"])

    def fwd() -> Any:
        with torch.inference_mode():
            z = conv(x, w, b, case.stride, case.padding).relu_()
            return z, aten.max_pool2d_with_indices(z, [2, 2])[1]

    z, places = fwd()

    def bwd() -> object:
        with torch.inference_mode():
            pooling = ([2, 2], [2, 2], [0, 0], [1, 1], False)
            dz = aten.max_pool2d_with_indices_backward(dy, z, *pooling, places)
            dz = aten.threshold_backward(dz, z, 0)
            args = ([case.K], case.stride, case.padding, [1, 1], False, [0, 0], 1)
            return aten.convolution_backward(dz, x, w, *args, [case.C > 3, True, True])

    return {"fwd": fwd, "bwd": bwd}


def run_fused(case: Case, seconds: float, torch: Any) -> dict[str, dict[str, float]]:
    """Time a case with ReLU and pooling, as `run_case` does."""
    rng = np.random.default_rng(0)
    a = {
        "x": rng.standard_normal((case.N, case.H, case.W, case.C), dtype=np.float32),
        "w": rng.standard_normal((case.K, case.R, case.S, case.C), dtype=np.float32),
        "b": rng.standard_normal(case.K, dtype=np.float32),
    }
    geometry: Any = {"stride": case.stride, "padding": case.padding}
    a["y"], a["argmax"] = ops.conv2d_relu_max_pool2d_fwd(a["x"], a["w"], a["b"], **geometry)
    a["dy"] = rng.standard_normal(a["y"].shape, dtype=np.float32)
    peers = {"stapes": fused_stapes(case, a)}
    if torch is not None:
        peers["torch"] = fused_torch(case, a, torch)
    one_way = 2 * case.N * case.H * case.W * case.K * case.C * case.R * case.S
    flops = {"fwd": one_way, "bwd": one_way * (2 if case.C > 3 else 1)}
    return {
        name: interleave({peer: f[name] for peer, f in peers.items()}, seconds=seconds)
        | {"flops": flops[name]}
        for name in ("fwd", "bwd")
    }


def cell(result: dict[str, float], threads: int) -> str:
    """Return one table cell: percent of peak, and the ratio of torch's time to ours."""

    def percent(peer: str) -> str:
        return f"{100 * result['flops'] / result[peer] / (result['peak'] * threads):.0f}"

    if "torch" not in result:
        return percent("stapes")
    ratio = result["torch"] / result["stapes"]
    return f"{percent('stapes')} / {percent('torch')} ({ratio:.2f}x)"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each kernel and direction")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--no-torch", action="store_true", help="time stapes alone")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    torch: Any = None if args.no_torch else importlib.import_module("torch")
    stapes.set_num_threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    peer = f"torch {torch.__version__}" if torch else "no peer"
    print(f"{platform.machine()}, {_core.isa()}, {args.threads} thread(s), {peer}")
    print("percent of FMA peak: stapes / torch (time of torch over time of stapes)\n")
    print("| layer, batch 32 | fwd | dgrad | wgrad + bias |\n|---|---|---|---|")
    results = {}
    for case in CASES:
        if args.only in case.name:
            results[case.name] = run_case(case, args.seconds, torch)
            cells = [cell(r, args.threads) for r in results[case.name].values()]
            print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
    print("\n| with ReLU and 2x2 max pooling | fwd | bwd |\n|---|---|---|")
    for case in FUSED:
        if args.only in case.name:
            fused = results[f"{case.name}, fused"] = run_fused(case, args.seconds, torch)
            cells = [cell(r, args.threads) for r in fused.values()]
            print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
