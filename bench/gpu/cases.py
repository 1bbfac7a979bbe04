"""What the kernels are measured on: each case computed by Stapes and by PyTorch's functions.

A case has inputs in our layout (NHWC, KRSC). PyTorch sees four-dimensional ones as NCHW (OIHW),
either contiguous so or as views of our memory, which it calls channels_last; in float64 the same
functions are the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as nnf

from stapes import ops

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """A kernel and a shape.

    Attributes
    ----------
    name, group : str
        ``group`` is "pair", "first", "3x3" or "other": which target it belongs to.
    shapes : callable
        Batch size to shapes of the inputs by name; what is in ``wide`` stays float32, and
        ``ids`` is an int64 (N,) below the last shape's size.
    ours : callable
        ``(inputs, options, out)`` to result or tuple of results; ``out`` is an earlier result.
    theirs : callable
        Inputs as PyTorch sees them to a tuple of results.
    flops : callable
        Batch size to the number of floating-point operations, 0 where bytes alone count.
    ours_before, theirs_before : callable
        What is there before the time begins, such as what a forward pass saved.
    multiplies : bool
        Whether the precision of products can be chosen: tf32.
    batch_free : bool
        Whether the batch size changes nothing.
    compared : bool
        Whether the results are those of PyTorch, to rounding.
    unread : frozenset of str
        Inputs of which only the shape counts.
    more_bytes : int
        Moved beside inputs and results: where inputs are updated in place.
    """

    name: str
    group: str
    shapes: Callable[[int], dict[str, tuple[int, ...]]]
    ours: Callable[[Any, dict[str, Any], Any], Any]
    theirs: Callable[[Any], tuple[torch.Tensor, ...]]
    flops: Callable[[int], int] = lambda n: 0
    ours_before: Callable[[Any, dict[str, Any]], dict[str, Any]] = lambda a, p: {}
    theirs_before: Callable[[Any], dict[str, Any]] = lambda t: {}
    multiplies: bool = False
    batch_free: bool = False
    compared: bool = True
    more_bytes: int = 0
    unread: frozenset[str] = frozenset()
    wide: frozenset[str] = field(default=frozenset({"b", "gamma", "beta", "mean", "var"}))


Shapes = Callable[[int], dict[str, tuple[int, ...]]]


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
    for name, group, H, W, C, K, (R, S), stride, pad, groups in layers:
        P, Q = (H + 2 * pad[0] - R) // stride[0] + 1, (W + 2 * pad[1] - S) // stride[1] + 1
        kw: dict[str, Any] = {"stride": stride, "padding": pad, "groups": groups}
        shape = {"x": (H, W, C), "dy": (P, Q, K), "w": (K, R, S, C // groups), "b": (K,)}

        def shapes(names: str, shape: Any = shape) -> Callable[[int], dict[str, tuple[int, ...]]]:
            return lambda n: {
                k: (n, *shape[k]) if k in ("x", "dy") else shape[k] for k in names.split()
            }

        def back(t: Any, mask: list[bool], K: int = K, kw: Any = kw) -> tuple[Any, ...]:
            args = ([K], kw["stride"], kw["padding"], [1, 1], False, [0, 0], kw["groups"])
            return tuple(aten.convolution_backward(t.dy, t.x, t.w, *args, mask))

        common: dict[str, Any] = {
            "group": group,
            "multiplies": True,
            "flops": lambda n, each=2 * P * Q * K * (C // groups) * R * S: n * each,
        }
        yield Case(
            f"conv {name} fwd", shapes=shapes("x w b"), **common,
            ours=lambda a, p, out, kw=kw: ops.conv2d_fwd(a.x, a.w, a.b, **kw, **p, out=out),
            theirs=lambda t, kw=kw: (nnf.conv2d(t.x, t.w, t.b, **kw),),
        )  # fmt: skip
        if group != "first":
            yield Case(
                f"conv {name} dgrad", shapes=shapes("x dy w"), unread=frozenset({"x"}), **common,
                ours=lambda a, p, out, kw=kw: ops.conv2d_dgrad(
                    a.dy, a.w, a.x.shape, **kw, **p, out=out
                ),
                theirs=lambda t, back=back: back(t, [True, False, False])[:1],
            )  # fmt: skip

        def wgrad(a: Any, p: dict[str, Any], out: Any, kw: Any = kw) -> Any:
            dw, db = (None, None) if out is None else out
            dw = ops.conv2d_wgrad(a.dy, a.x, a.w.shape, **kw, **p, out=dw)
            return dw, ops.conv2d_bgrad(a.dy, out=db)

        yield Case(
            f"conv {name} wgrad + bias", shapes=shapes("x dy w"), unread=frozenset({"w"}), **common,
            ours=wgrad, theirs=lambda t, back=back: back(t, [False, True, True])[1:],
        )  # fmt: skip


def pair_cases() -> Iterator[Case]:
    """Yield conv + ReLU + 2x2 max pool of the seed network, forward and backward."""
    for H, C, K in ((64, 3, 32), (64, 1, 32), (32, 32, 64)):
        need_dx = C > 3
        flops = 2 * H * H * K * 9 * C
        name = f"C{C} {H}x{H} -> {K} + ReLU + pool"

        def forward(t: Any) -> tuple[Any, Any, Any]:
            z = torch.relu(nnf.conv2d(t.x, t.w, t.b, padding=1))
            return (z, *nnf.max_pool2d(z, 2, return_indices=True))

        def backward(t: Any, K: int = K, need_dx: bool = need_dx) -> tuple[Any, ...]:
            dz = aten.max_pool2d_with_indices_backward(
                t.dy, t.z, [2, 2], [2, 2], [0, 0], [1, 1], False, t.indices
            )
            dz = aten.threshold_backward(dz, t.z, 0)
            args = ([K], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [need_dx, True, True])
            return tuple(aten.convolution_backward(dz, t.x, t.w, *args))

        def saved(t: Any, forward: Any = forward) -> dict[str, Any]:
            z, _, indices = forward(t)
            return {"z": z, "indices": indices}

        yield Case(
            f"{name} fwd", "pair",
            shapes=lambda n, H=H, C=C, K=K: {"x": (n, H, H, C), "w": (K, 3, 3, C), "b": (K,)},
            ours=lambda a, p, out: ops.conv2d_relu_max_pool2d_fwd(
                a.x, a.w, a.b, padding=1, **p, out=out
            ),
            theirs=lambda t, forward=forward: forward(t)[1:2],
            flops=lambda n, flops=flops: n * flops, multiplies=True,
        )  # fmt: skip
        yield Case(
            f"{name} bwd", "pair",
            shapes=lambda n, H=H, C=C, K=K: {
                "x": (n, H, H, C), "w": (K, 3, 3, C), "b": (K,), "dy": (n, H // 2, H // 2, K)
            },
            ours_before=lambda a, p: {
                "argmax": ops.conv2d_relu_max_pool2d_fwd(a.x, a.w, a.b, padding=1, **p)[1]
            },
            ours=lambda a, p, out, need_dx=need_dx: ops.conv2d_relu_max_pool2d_bwd(
                a.dy, a.argmax, a.x, a.w, padding=1, need_dx=need_dx, **p, out=out
            ),
            theirs_before=saved, theirs=backward, multiplies=True, unread=frozenset({"b"}),
            flops=lambda n, flops=flops, need_dx=need_dx: n * flops * (1 + need_dx),
        )  # fmt: skip


def elementwise_cases() -> Iterator[Case]:
    """Yield what moves bytes and computes little, on the second layer's maps."""

    def maps(*names: str) -> Callable[[int], dict[str, tuple[int, ...]]]:
        full = {"x": (32, 32, 64), "dy": (32, 32, 64), "small": (16, 16, 64), "rows": (64,)}
        return lambda n: {k: (n, *full[k]) if k in full else (64,) for k in names}

    def pool_saved(t: Any) -> dict[str, Any]:
        return {"indices": nnf.max_pool2d(t.x, 2, return_indices=True)[1]}

    two, none, one = [2, 2], [0, 0], [1, 1]
    yield Case("relu fwd", "other", maps("x"), lambda a, p, out: ops.relu_fwd(a.x, out=out),
               lambda t: (torch.relu(t.x),))  # fmt: skip
    yield Case("relu bwd", "other", maps("dy", "x"),
               lambda a, p, out: ops.relu_bwd(a.dy, a.x, out=out),
               lambda t: (aten.threshold_backward(t.dy, t.x, 0),))  # fmt: skip
    yield Case("max pool fwd", "other", maps("x"),
               lambda a, p, out: ops.max_pool2d_fwd(a.x, 2, out=out),
               lambda t: nnf.max_pool2d(t.x, 2, return_indices=True)[:1])  # fmt: skip
    yield Case("max pool bwd", "other", maps("small", "x"), unread=frozenset({"x"}),
               ours_before=lambda a, p: {"argmax": ops.max_pool2d_fwd(a.x, 2)[1]},
               ours=lambda a, p, out: ops.max_pool2d_bwd(
                   a.small, a.argmax, a.x.shape, 2, out=out),
               theirs_before=pool_saved,
               theirs=lambda t: (aten.max_pool2d_with_indices_backward(
                   t.small, t.x, two, two, none, one, False, t.indices),))  # fmt: skip
    yield Case("avg pool fwd", "other", maps("x"),
               lambda a, p, out: ops.avg_pool2d_fwd(a.x, 2, out=out),
               lambda t: (nnf.avg_pool2d(t.x, 2),))  # fmt: skip
    yield Case("avg pool bwd", "other", maps("small", "x"), unread=frozenset({"x"}),
               ours=lambda a, p, out: ops.avg_pool2d_bwd(a.small, a.x.shape, 2, out=out),
               theirs=lambda t: (aten.avg_pool2d_backward(
                   t.small, t.x, two, two, none, False, True, None),))  # fmt: skip
    yield Case("global avg pool fwd", "other", maps("x"),
               lambda a, p, out: ops.global_avg_pool2d_fwd(a.x, out=out),
               lambda t: (t.x.mean((2, 3)),))  # fmt: skip
    yield Case("global avg pool bwd", "other", maps("rows", "x"), unread=frozenset({"x"}),
               ours=lambda a, p, out: ops.global_avg_pool2d_bwd(a.rows, a.x.shape, out=out),
               theirs=lambda t: (
                   (t.rows / 1024)[:, :, None, None].expand(t.x.shape).clone(
                       memory_format=torch.channels_last),))  # fmt: skip
    yield Case("upsample fwd", "other", maps("small"),
               lambda a, p, out: ops.upsample2d_fwd(a.small, 2, out=out),
               lambda t: (nnf.interpolate(t.small, scale_factor=2),))  # fmt: skip
    yield Case("upsample bwd", "other", maps("x"),
               lambda a, p, out: ops.upsample2d_bwd(a.x, 2, out=out),
               lambda t: (4 * nnf.avg_pool2d(t.x, 2),))  # fmt: skip
    yield Case("dropout fwd", "other", maps("x"),
               ours=lambda a, p, out: ops.dropout_fwd(a.x, 0.5, seed=1, offset=0, out=out),
               theirs=lambda t: (nnf.dropout(t.x, 0.5),), compared=False)  # fmt: skip
    yield from norm_cases(maps)


def norm_cases(maps: Callable[..., Any]) -> Iterator[Case]:
    """Yield batch normalisation in training."""

    def fwd(a: Any, p: dict[str, Any], out: Any) -> Any:
        return ops.batch_norm2d_fwd(a.x, a.gamma, a.beta, a.mean, a.var, training=True, out=out)

    def theirs_fwd(t: Any) -> tuple[Any, ...]:
        return (nnf.batch_norm(t.x, t.mean, t.var, t.gamma, t.beta, True, 0.1, 1e-5),)

    def statistics(a: Any, p: dict[str, Any]) -> dict[str, Any]:
        _, mean, rstd = fwd(a, p, None)
        return {"batch_mean": mean, "rstd": rstd}

    def theirs_statistics(t: Any) -> dict[str, Any]:
        x = t.x.to(t.gamma.dtype)
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        return {"batch_mean": mean, "rstd": torch.rsqrt(var + 1e-5)}

    yield Case("batch norm fwd", "other", maps("x", "gamma", "beta", "mean", "var"), fwd,
               theirs_fwd)  # fmt: skip
    yield Case("batch norm bwd", "other", maps("dy", "x", "gamma", "beta", "mean", "var"),
               unread=frozenset({"beta", "mean", "var"}),
               ours_before=statistics, theirs_before=theirs_statistics,
               ours=lambda a, p, out: ops.batch_norm2d_bwd(
                   a.dy, a.x, a.gamma, a.batch_mean, a.rstd, out=out),
               theirs=lambda t: tuple(aten.native_batch_norm_backward(
                   t.dy, t.x, t.gamma, None, None, t.batch_mean, t.rstd, True, 1e-5,
                   [True, True, True])))  # fmt: skip


def dense_cases() -> Iterator[Case]:
    """Yield the network's dense layer, softmax and the losses."""
    C, K = 16384, 64

    def wgrad(a: Any, p: dict[str, Any], out: Any) -> Any:
        dw, db = (None, None) if out is None else out
        return ops.linear_wgrad(a.dy, a.x, **p, out=dw), ops.linear_bgrad(a.dy, out=db)

    kw: dict[str, Any] = {"multiplies": True, "flops": lambda n: 2 * n * C * K}
    yield Case(
        "linear 16384 -> 64 fwd", "other", lambda n: {"x": (n, C), "w": (K, C), "b": (K,)},
        lambda a, p, out: ops.linear_fwd(a.x, a.w, a.b, **p, out=out),
        lambda t: (nnf.linear(t.x, t.w, t.b),), **kw,
    )  # fmt: skip
    yield Case(
        "linear 16384 -> 64 dgrad", "other", lambda n: {"dy": (n, K), "w": (K, C)},
        lambda a, p, out: ops.linear_dgrad(a.dy, a.w, **p, out=out),
        lambda t: (t.dy @ t.w,), **kw,
    )  # fmt: skip
    yield Case(
        "linear 16384 -> 64 wgrad + bias", "other", lambda n: {"dy": (n, K), "x": (n, C)},
        wgrad, lambda t: (t.dy.T @ t.x, t.dy.sum(0)), **kw,
    )  # fmt: skip
    classes = 1000

    def entropy(a: Any, p: dict[str, Any], out: Any) -> Any:
        loss, saved, dlogits = (None, None, None) if out is None else out
        loss, saved = ops.cross_entropy_fwd(a.x, a.ids, out=(loss, saved))
        dlogits = ops.cross_entropy_bwd(saved, out=dlogits)
        return loss, saved, dlogits

    def their_entropy(t: Any) -> tuple[Any, ...]:
        logs = aten._log_softmax(t.x, 1, False)
        loss, weight = aten.nll_loss_forward(logs, t.ids, None, 1, -100)
        one = torch.ones_like(loss)
        d = aten.nll_loss_backward(one, logs, t.ids, None, 1, -100, weight)
        d = aten._log_softmax_backward_data(d, logs, 1, t.x.dtype)
        return loss, d, d

    rows: Callable[[int], dict[str, tuple[int, ...]]] = lambda n: {"x": (n, classes)}  # noqa: E731
    both: Callable[[int], dict[str, tuple[int, ...]]] = lambda n: {  # noqa: E731
        "x": (n, classes), "dy": (n, classes)
    }  # fmt: skip
    yield Case("cross-entropy fwd + bwd, 1000 classes", "other",
               lambda n: {"x": (n, classes), "ids": (n,)}, entropy, their_entropy)  # fmt: skip
    yield Case("softmax fwd, 1000 classes", "other", rows,
               lambda a, p, out: ops.softmax_fwd(a.x, out=out),
               lambda t: (torch.softmax(t.x, 1),))  # fmt: skip
    yield Case("softmax bwd, 1000 classes", "other", both,
               lambda a, p, out: ops.softmax_bwd(a.dy, a.x, out=out),
               lambda t: (aten._softmax_backward_data(t.dy, t.x, 1, t.x.dtype),))  # fmt: skip
    yield Case("mse fwd, 1000 outputs", "other", both,
               lambda a, p, out: ops.mse_fwd(a.x, a.dy, out=out),
               lambda t: (nnf.mse_loss(t.x, t.dy),))  # fmt: skip


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


def optimizer_cases() -> Iterator[Case]:
    """Yield Adam over the seed network's parameters."""
    sizes = {"p0": (32, 3, 3, 3), "p1": (32,), "p2": (64, 3, 3, 32), "p3": (64,),
             "p4": (64, 16384), "p5": (64,), "p6": (10, 64), "p7": (10,)}  # fmt: skip
    names = tuple(sizes)
    shapes = {f"{kind}{name}": size for kind in "pgmv" for name, size in sizes.items()}

    def lists(a: Any) -> Any:
        p, g, m, v = ([getattr(a, f"{kind}{name}") for name in names] for kind in "pgmv")
        return p, g, m, v

    def ours(a: Any, p: dict[str, Any], out: Any) -> Any:
        params, grads, m, v = lists(a)
        ops.adam_step(params, grads, m, v, 1, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
        return params[0]

    def before(t: Any) -> dict[str, Any]:
        return {"steps": [torch.ones((), device=t.pp0.device) for _ in names]}

    def theirs(t: Any) -> tuple[torch.Tensor, ...]:
        params, grads, m, v = lists(t)
        torch._fused_adam_(
            params, grads, m, v, [], t.steps, lr=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.0,
            eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        return ()

    yield Case("Adam, 1.07 M parameters", "other", lambda n: shapes, ours, theirs,
               theirs_before=before, batch_free=True, compared=False, wide=frozenset(shapes),
               more_bytes=12 * sum(math.prod(size) for size in sizes.values()))  # fmt: skip


def all_cases() -> list[Case]:
    """Return all, those that targets name first."""
    found = [*pair_cases(), *conv_cases(), *dense_cases(), *elementwise_cases()]
    found += [*transposed_cases(), *optimizer_cases()]
    order = ("pair", "first", "3x3", "other")
    return sorted(found, key=lambda c: order.index(c.group))
