"""What moves bytes and computes little: elementwise, pooling, normalisation, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as nnf
from case import Case, Shapes

from stapes import ops

aten: Any = torch.ops.aten


def elementwise_cases() -> Iterator[Case]:
    """Yield what moves bytes and computes little, on the second layer's maps."""

    def maps(*names: str) -> Shapes:
        full = {"x": (32, 32, 64), "dy": (32, 32, 64), "small": (16, 16, 64), "rows": (64,)}
        others = {"w": (64, 1, 1, 64)}
        return lambda n: {k: (n, *full[k]) if k in full else others.get(k, (64,)) for k in names}

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
    yield from pooled_norm_cases(maps, theirs_statistics)
    yield from mean_norm_cases(maps, theirs_statistics)
    yield from norm_conv_cases(maps, theirs_statistics)


def pooled_norm_cases(
    maps: Callable[..., Any], theirs_statistics: Callable[[Any], dict[str, Any]]
) -> Iterator[Case]:
    """Yield batch normalisation with ReLU and 2x2 max pooling behind it, in training."""

    def fwd(a: Any, p: dict[str, Any], out: Any) -> Any:
        return ops.batch_norm2d_relu_max_pool2d_fwd(
            a.x, a.gamma, a.beta, a.mean, a.var, training=True, out=out
        )

    def rectified(t: Any, mean: Any = None, var: Any = None) -> Any:
        return torch.relu(nnf.batch_norm(t.x, mean, var, t.gamma, t.beta, True, 0.1, 1e-5))

    def theirs_fwd(t: Any) -> tuple[Any, ...]:
        return nnf.max_pool2d(rectified(t, t.mean, t.var), 2, return_indices=True)[:1]

    def saved(a: Any, p: dict[str, Any]) -> dict[str, Any]:
        _, argmax, mean, rstd = fwd(a, p, None)
        return {"argmax": argmax, "batch_mean": mean, "rstd": rstd}

    def theirs_saved(t: Any) -> dict[str, Any]:
        z = rectified(t)
        indices = nnf.max_pool2d(z, 2, return_indices=True)[1]
        return {"z": z, "indices": indices, **theirs_statistics(t)}

    def theirs_bwd(t: Any) -> tuple[Any, ...]:
        dz = aten.max_pool2d_with_indices_backward(
            t.small, t.z, [2, 2], [2, 2], [0, 0], [1, 1], False, t.indices
        )
        dz = aten.threshold_backward(dz, t.z, 0)
        return tuple(aten.native_batch_norm_backward(
            dz, t.x, t.gamma, None, None, t.batch_mean, t.rstd, True, 1e-5, [True, True, True]
        ))  # fmt: skip

    yield Case("batch norm, relu, max pool fwd", "other",
               maps("x", "gamma", "beta", "mean", "var"), fwd, theirs_fwd)  # fmt: skip
    yield Case("batch norm, relu, max pool bwd", "other",
               maps("small", "x", "gamma", "beta", "mean", "var"),
               unread=frozenset({"beta", "mean", "var"}),
               ours_before=saved, theirs_before=theirs_saved, theirs=theirs_bwd,
               ours=lambda a, p, out: ops.batch_norm2d_relu_max_pool2d_bwd(
                   a.small, a.argmax, a.x, a.gamma, a.batch_mean, a.rstd, out=out))  # fmt: skip


def mean_norm_cases(
    maps: Callable[..., Any], theirs_statistics: Callable[[Any], dict[str, Any]]
) -> Iterator[Case]:
    """Yield batch normalisation with ReLU and the mean over the image behind it, in training."""

    def fwd(a: Any, p: dict[str, Any], out: Any) -> Any:
        return ops.batch_norm2d_relu_global_avg_pool2d_fwd(
            a.x, a.gamma, a.beta, a.mean, a.var, training=True, out=out
        )

    def rectified(t: Any, mean: Any = None, var: Any = None) -> Any:
        return torch.relu(nnf.batch_norm(t.x, mean, var, t.gamma, t.beta, True, 0.1, 1e-5))

    def saved(a: Any, p: dict[str, Any]) -> dict[str, Any]:
        _, norm, alive = fwd(a, p, None)
        return {"norm": norm, "alive": alive}

    def theirs_bwd(t: Any) -> tuple[Any, ...]:
        dz = (t.rows / (t.x.shape[2] * t.x.shape[3]))[:, :, None, None].expand_as(t.z)
        dz = aten.threshold_backward(dz, t.z, 0)
        return tuple(aten.native_batch_norm_backward(
            dz, t.x, t.gamma, None, None, t.batch_mean, t.rstd, True, 1e-5, [True, True, True]
        ))  # fmt: skip

    yield Case("batch norm, relu, mean fwd", "other",
               maps("x", "gamma", "beta", "mean", "var"), fwd,
               lambda t: (rectified(t, t.mean, t.var).mean((2, 3)),))  # fmt: skip
    yield Case("batch norm, relu, mean bwd", "other",
               maps("rows", "x", "gamma", "beta", "mean", "var"),
               unread=frozenset({"beta", "mean", "var"}),
               ours_before=saved,
               theirs_before=lambda t: {"z": rectified(t), **theirs_statistics(t)},
               theirs=theirs_bwd,
               ours=lambda a, p, out: ops.batch_norm2d_relu_global_avg_pool2d_bwd(
                   a.rows, a.x, a.gamma, a.norm, a.alive, out=out))  # fmt: skip


def norm_conv_cases(
    maps: Callable[..., Any], theirs_statistics: Callable[[Any], dict[str, Any]]
) -> Iterator[Case]:
    """Yield batch normalisation with ReLU and a 1x1 convolution behind it, in training."""
    names = "x", "gamma", "beta", "mean", "var", "w"

    def fwd(a: Any, p: dict[str, Any], out: Any) -> Any:
        return ops.batch_norm2d_relu_conv2d_fwd(
            a.x, a.gamma, a.beta, a.mean, a.var, a.w, training=True, out=out
        )

    def rectified(t: Any, mean: Any = None, var: Any = None) -> Any:
        return torch.relu(nnf.batch_norm(t.x, mean, var, t.gamma, t.beta, True, 0.1, 1e-5))

    def bwd(a: Any, p: dict[str, Any], out: Any) -> Any:
        out = None if out is None else (*out, None)
        return ops.batch_norm2d_relu_conv2d_bwd(
            a.dy, a.x, a.gamma, a.norm, a.w, need_db=False, out=out
        )[:4]

    def theirs_bwd(t: Any) -> tuple[Any, ...]:
        dz, dw, _ = aten.convolution_backward(
            t.dy, t.z, t.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        dz = aten.threshold_backward(dz, t.z, 0)
        of_norm = aten.native_batch_norm_backward(
            dz, t.x, t.gamma, None, None, t.batch_mean, t.rstd, True, 1e-5, [True, True, True]
        )
        return *of_norm, dw

    yield Case("batch norm, relu, 1x1 conv fwd", "other", maps(*names), fwd,
               lambda t: (nnf.conv2d(rectified(t, t.mean, t.var), t.w),))  # fmt: skip
    yield Case("batch norm, relu, 1x1 conv bwd", "other", maps("dy", *names),
               unread=frozenset({"beta", "mean", "var"}),
               ours_before=lambda a, p: {"norm": fwd(a, p, None)[1]}, ours=bwd,
               theirs_before=lambda t: {"z": rectified(t), **theirs_statistics(t)},
               theirs=theirs_bwd)  # fmt: skip


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
               theirs_before=before, batch_free=True, fp32_only=True, compared=False,
               wide=frozenset(shapes),
               more_bytes=12 * sum(map(math.prod, sizes.values())))  # fmt: skip
