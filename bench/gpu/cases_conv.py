"""Convolutions, alone and fused with ReLU and max pooling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as nnf
from case import Case, Shapes

from stapes import ops

aten: Any = torch.ops.aten


def conv_cases() -> Iterator[Case]:
    """Yield convolutions, three directions each; first layers need no dgrad."""
    layers = [  # name, group, H, W, C, K, (R, S), stride, padding, groups
        ("C3 64x64 -> 32", "first", 64, 64, 3, 32, (3, 3), (1, 1), (1, 1), 1),
        ("C1 64x64 -> 32", "first", 64, 64, 1, 32, (3, 3), (1, 1), (1, 1), 1),
        ("C64 32x32 -> 64", "3x3", 32, 32, 64, 64, (3, 3), (1, 1), (1, 1), 1),
        ("C64 16x16 -> 128", "3x3", 16, 16, 64, 128, (3, 3), (1, 1), (1, 1), 1),
        ("C128 16x16 -> 128", "3x3", 16, 16, 128, 128, (3, 3), (1, 1), (1, 1), 1),
        ("C64 16x16 -> 64, 1x1", "other", 16, 16, 64, 64, (1, 1), (1, 1), (0, 0), 1),
        ("C64 16x16 depthwise", "other", 16, 16, 64, 64, (3, 3), (1, 1), (1, 1), 64),
        ("C1 1x16000 -> 64, 1x80/4", "first", 1, 16000, 1, 64, (1, 80), (1, 4), (0, 0), 1),
    ]
    for layer in layers:
        yield from _directions(*layer)


def _directions(
    name: str, group: str, H: int, W: int, C: int, K: int, window: tuple[int, int],
    stride: tuple[int, int], pad: tuple[int, int], groups: int,
) -> Iterator[Case]:  # fmt: skip
    R, S = window
    P, Q = (H + 2 * pad[0] - R) // stride[0] + 1, (W + 2 * pad[1] - S) // stride[1] + 1
    kw: dict[str, Any] = {"stride": stride, "padding": pad, "groups": groups}
    shape = {"x": (H, W, C), "dy": (P, Q, K), "w": (K, R, S, C // groups), "b": (K,)}

    def shapes(names: str) -> Shapes:
        return lambda n: {
            k: (n, *shape[k]) if k in ("x", "dy") else shape[k] for k in names.split()
        }

    def back(t: Any, mask: list[bool]) -> tuple[Any, ...]:
        args = ([K], kw["stride"], kw["padding"], [1, 1], False, [0, 0], kw["groups"])
        return tuple(aten.convolution_backward(t.dy, t.x, t.w, *args, mask))

    common: dict[str, Any] = {
        "group": group,
        "multiplies": True,
        "flops": lambda n: n * 2 * P * Q * K * (C // groups) * R * S,
    }
    yield Case(
        f"conv {name} fwd", shapes=shapes("x w b"), **common,
        ours=lambda a, p, out: ops.conv2d_fwd(a.x, a.w, a.b, **kw, **p, out=out),
        theirs=lambda t: (nnf.conv2d(t.x, t.w, t.b, **kw),),
    )  # fmt: skip
    if group != "first":
        yield Case(
            f"conv {name} dgrad", shapes=shapes("x dy w"), unread=frozenset({"x"}), **common,
            ours=lambda a, p, out: ops.conv2d_dgrad(a.dy, a.w, a.x.shape, **kw, **p, out=out),
            theirs=lambda t: back(t, [True, False, False])[:1],
        )  # fmt: skip

    def wgrad(a: Any, p: dict[str, Any], out: Any) -> Any:
        dw, db = (None, None) if out is None else out
        dw = ops.conv2d_wgrad(a.dy, a.x, a.w.shape, **kw, **p, out=dw)
        return dw, ops.conv2d_bgrad(a.dy, out=db)

    yield Case(
        f"conv {name} wgrad + bias", shapes=shapes("x dy w"), unread=frozenset({"w"}), **common,
        ours=wgrad, theirs=lambda t: back(t, [False, True, True])[1:],
    )  # fmt: skip


def pair_cases() -> Iterator[Case]:
    """Yield conv + ReLU + 2x2 max pool of the seed network, forward and backward."""
    for H, C, K in ((64, 3, 32), (64, 1, 32), (32, 32, 64)):
        yield from _pair(H, C, K)


def _pair(H: int, C: int, K: int) -> Iterator[Case]:
    need_dx = C > 3
    flops = 2 * H * H * K * 9 * C
    name = f"C{C} {H}x{H} -> {K} + ReLU + pool"

    def forward(t: Any) -> tuple[Any, Any, Any]:
        z = torch.relu(nnf.conv2d(t.x, t.w, t.b, padding=1))
        return (z, *nnf.max_pool2d(z, 2, return_indices=True))

    def backward(t: Any) -> tuple[Any, ...]:
        dz = aten.max_pool2d_with_indices_backward(
            t.dy, t.z, [2, 2], [2, 2], [0, 0], [1, 1], False, t.indices
        )
        dz = aten.threshold_backward(dz, t.z, 0)
        args = ([K], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [need_dx, True, True])
        return tuple(aten.convolution_backward(dz, t.x, t.w, *args))

    def saved(t: Any) -> dict[str, Any]:
        z, _, indices = forward(t)
        return {"z": z, "indices": indices}

    yield Case(
        f"{name} fwd", "pair",
        shapes=lambda n: {"x": (n, H, H, C), "w": (K, 3, 3, C), "b": (K,)},
        ours=lambda a, p, out: ops.conv2d_relu_max_pool2d_fwd(
            a.x, a.w, a.b, padding=1, **p, out=out
        ),
        theirs=lambda t: forward(t)[1:2],
        flops=lambda n: n * flops, multiplies=True,
    )  # fmt: skip
    yield Case(
        f"{name} bwd", "pair",
        shapes=lambda n: {
            "x": (n, H, H, C), "w": (K, 3, 3, C), "b": (K,), "dy": (n, H // 2, H // 2, K)
        },
        ours_before=lambda a, p: {
            "argmax": ops.conv2d_relu_max_pool2d_fwd(a.x, a.w, a.b, padding=1, **p)[1]
        },
        ours=lambda a, p, out: ops.conv2d_relu_max_pool2d_bwd(
            a.dy, a.argmax, a.x, a.w, padding=1, need_dx=need_dx, **p, out=out
        ),
        theirs_before=saved, theirs=backward, multiplies=True, unread=frozenset({"b"}),
        flops=lambda n: n * flops * (1 + need_dx),
    )  # fmt: skip


def transposed_cases() -> Iterator[Case]:
    """Yield the transposed convolution that doubles a map."""
    yield Case(
        "conv transpose C64 16x16 -> 64, 4x4/2 fwd", "other",
        lambda n: {"x": (n, 16, 16, 64), "w": (64, 4, 4, 64), "b": (64,)},
        lambda a, p, out: ops.conv_transpose2d_fwd(a.x, a.w, a.b, stride=2, padding=1, **p,
                                                   out=out),
        lambda t: (nnf.conv_transpose2d(t.x, t.w, t.b, 2, 1),),
        flops=lambda n: 2 * n * 16 * 16 * 64 * 16 * 64, multiplies=True,
    )  # fmt: skip
