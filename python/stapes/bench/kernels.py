"""Each operator as the benchmark calls it: on a named convolution's input, map or weights.

What follows a convolution in a network (ReLU, pooling, normalisation) is measured on the map that
the named convolution makes, the loss on its first pixel, the optimizer on its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from stapes import ops
from stapes.bench.shapes import ConvCase
from stapes.device import Array, empty, to_device

WIDE = frozenset({"gamma", "beta", "mean", "var", "rstd", "m", "v", "weights", "grad"})
"""Arrays that stay float32 beside 16-bit ones, as do our biases ("b")."""


class Arrays(SimpleNamespace):
    """What operators take, by name."""

    def keep(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the array of this name, made when it is first asked for."""
        if not hasattr(self, name):
            setattr(self, name, make())
        return getattr(self, name)


@dataclass(frozen=True)
class Task:
    """A call that can be repeated.

    Attributes
    ----------
    run : callable
        Takes an earlier result to write into, or None; returns the result or a tuple of them.
    reads : tuple of array
        The inputs whose bytes count.
    """

    run: Callable[[Any], Any]
    reads: tuple[Array, ...]


@dataclass(frozen=True)
class Kernel:
    """An operator of the benchmark.

    Attributes
    ----------
    task : callable
        Arrays and the shape to the work; may do what comes before it, such as a forward pass.
    takes : callable
        Whether the operator can do this shape at all, and whether anybody needs it there.
    products : callable
        How many times the operations of the convolution itself it does.
    """

    task: Callable[[Any, ConvCase], Task]
    takes: Callable[[ConvCase], bool] = lambda case: True
    products: Callable[[ConvCase], int] = lambda case: 0


def host_arrays(case: ConvCase, dtype: str = "float32") -> dict[str, Array]:
    """Return what the operators take, drawn from the standard normal distribution.

    Weights are He uniform, so that what follows the convolution is in a network's usual range.
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        array = empty(np, shape, dtype)  # begins where a library's own arrays do
        array[...] = rng.standard_normal(shape)
        return array

    N, K = case.x[0], case.w[0]
    bound = np.sqrt(6 / np.prod(case.w[1:]))
    a: dict[str, Array] = {
        "x": normal(*case.x),
        "w": rng.uniform(-bound, bound, case.w).astype(dtype),
        "b": normal(K),
    }
    a["y"] = ops.conv2d_fwd(a["x"], a["w"], a["b"], **case.options)
    P, Q = a["y"].shape[1:3]
    a |= {"dy": normal(*a["y"].shape), "dp": normal(N, P // 2, Q // 2, K)}
    a |= {"gamma": normal(K), "beta": normal(K), "mean": normal(K), "var": normal(K) ** 2}
    a |= {"logits": normal(N, K), "ids": rng.integers(0, K, N)}
    a |= {
        "weights": a["w"],
        "grad": normal(*case.w),
        "m": normal(*case.w),
        "v": normal(*case.w) ** 2,
    }
    return a


def on_device(arrays: dict[str, Array], dtype: str, device: str) -> Arrays:
    """Return the arrays in the dtype and on the device that are measured."""
    moved = {}
    for name, array in arrays.items():
        there = to_device(array, device)
        narrow = dtype in ("float16", "bfloat16") and name not in WIDE | {"b"}
        narrow = narrow and array.dtype.kind == "f"
        moved[name] = ops.cast(there, _dtype(dtype)) if narrow else there
    return Arrays(**moved)


def results(value: Any) -> tuple[Any, ...]:
    """Return the arrays that a task gave."""
    return tuple(a for a in (value if isinstance(value, tuple) else (value,)) if a is not None)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    found: np.dtype[Any] = np.dtype(name)
    return found


def _conv2d_fwd(a: Any, case: ConvCase) -> Task:
    return Task(lambda out: ops.conv2d_fwd(a.x, a.w, a.b, **case.options, out=out), (a.x, a.w, a.b))


def _conv2d_dgrad(a: Any, case: ConvCase) -> Task:
    return Task(
        lambda out: ops.conv2d_dgrad(a.dy, a.w, case.x, **case.options, out=out), (a.dy, a.w)
    )


def _conv2d_wgrad(a: Any, case: ConvCase) -> Task:
    def run(out: Any) -> Any:
        dw, db = out or (None, None)
        dw = ops.conv2d_wgrad(a.dy, a.x, case.w, **case.options, out=dw)
        return dw, ops.conv2d_bgrad(a.dy, out=db)

    return Task(run, (a.dy, a.x))


def _pooled_fwd(a: Any, case: ConvCase) -> Task:
    def run(out: Any) -> Any:
        return ops.conv2d_relu_max_pool2d_fwd(a.x, a.w, a.b, **case.dense_options, out=out)

    return Task(run, (a.x, a.w, a.b))


def _pooled_bwd(a: Any, case: ConvCase) -> Task:
    argmax = a.keep(
        "argmax", lambda: ops.conv2d_relu_max_pool2d_fwd(a.x, a.w, a.b, **case.dense_options)[1]
    )

    def run(out: Any) -> Any:
        return ops.conv2d_relu_max_pool2d_bwd(
            a.dp, argmax, a.x, a.w, **case.dense_options, need_dx=not is_first(case), out=out
        )

    return Task(run, (a.dp, argmax, a.x, a.w))


def _linear(a: Any, case: ConvCase) -> tuple[Array, Array, Array]:
    N, K = case.x[0], case.w[0]
    return a.x.reshape(N, -1), a.w.reshape(K, -1), a.dy.reshape(N, K)


def _linear_fwd(a: Any, case: ConvCase) -> Task:
    x, w, _ = _linear(a, case)
    return Task(lambda out: ops.linear_fwd(x, w, a.b, out=out), (x, w, a.b))


def _linear_dgrad(a: Any, case: ConvCase) -> Task:
    _, w, dy = _linear(a, case)
    return Task(lambda out: ops.linear_dgrad(dy, w, out=out), (dy, w))


def _linear_wgrad(a: Any, case: ConvCase) -> Task:
    x, _, dy = _linear(a, case)

    def run(out: Any) -> Any:
        dw, db = out or (None, None)
        return ops.linear_wgrad(dy, x, out=dw), ops.linear_bgrad(dy, out=db)

    return Task(run, (dy, x))


def _relu_fwd(a: Any, case: ConvCase) -> Task:
    return Task(lambda out: ops.relu_fwd(a.y, out=out), (a.y,))


def _relu_bwd(a: Any, case: ConvCase) -> Task:
    y = a.keep("rectified", lambda: ops.relu_fwd(a.y))
    return Task(lambda out: ops.relu_bwd(a.dy, y, out=out), (a.dy, y))


def _max_pool2d_fwd(a: Any, case: ConvCase) -> Task:
    return Task(lambda out: ops.max_pool2d_fwd(a.y, 2, out=out), (a.y,))


def _max_pool2d_bwd(a: Any, case: ConvCase) -> Task:
    argmax = a.keep("places", lambda: ops.max_pool2d_fwd(a.y, 2)[1])
    return Task(lambda out: ops.max_pool2d_bwd(a.dp, argmax, a.y.shape, 2, out=out), (a.dp, argmax))


def _batch_norm2d_fwd(a: Any, case: ConvCase) -> Task:
    mean, var = a.mean.copy(), a.var.copy()

    def run(out: Any) -> Any:
        return ops.batch_norm2d_fwd(a.y, a.gamma, a.beta, mean, var, training=True, out=out)

    return Task(run, (a.y, a.gamma, a.beta))


def _batch_norm2d_bwd(a: Any, case: ConvCase) -> Task:
    mean, var = a.mean.copy(), a.var.copy()
    _, *saved = ops.batch_norm2d_fwd(a.y, a.gamma, a.beta, mean, var, training=True)
    return Task(
        lambda out: ops.batch_norm2d_bwd(a.dy, a.y, a.gamma, *saved, out=out), (a.dy, a.y, a.gamma)
    )


def _cross_entropy_fwd(a: Any, case: ConvCase) -> Task:
    return Task(lambda out: ops.cross_entropy_fwd(a.logits, a.ids, out=out), (a.logits, a.ids))


def _adam_step(a: Any, case: ConvCase) -> Task:
    w, m, v = a.weights.copy(), a.m.copy(), a.v.copy()

    def run(out: Any) -> Any:
        ops.adam_step([w], [a.grad], [m], [v], 10, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
        return w, m, v

    return Task(run, (w, a.grad, m, v))


def is_first(case: ConvCase) -> bool:
    """Tell whether it is a network's first layer, which has no dgrad."""
    return case.x[3] in (1, 3) and case.groups == 1


def _is_dense(case: ConvCase) -> bool:
    return case.x[1:3] == case.w[1:3] == case.output[1:3] == (1, 1) and case.groups == 1


def _is_map(case: ConvCase) -> bool:
    return not _is_dense(case)


def _is_image(case: ConvCase) -> bool:
    return min(case.output[1:3]) > 1


def _is_pooled(case: ConvCase) -> bool:
    return _is_image(case) and case.groups == 1 and case.dilation in (1, (1, 1))


KERNELS: dict[str, Kernel] = {
    "conv2d_fwd": Kernel(_conv2d_fwd, _is_map, lambda case: 1),
    "conv2d_dgrad": Kernel(
        _conv2d_dgrad, lambda case: _is_map(case) and not is_first(case), lambda case: 1
    ),
    "conv2d_wgrad": Kernel(_conv2d_wgrad, _is_map, lambda case: 1),
    "conv2d_relu_max_pool2d_fwd": Kernel(_pooled_fwd, _is_pooled, lambda case: 1),
    "conv2d_relu_max_pool2d_bwd": Kernel(
        _pooled_bwd, _is_pooled, lambda case: 1 if is_first(case) else 2
    ),
    "linear_fwd": Kernel(_linear_fwd, _is_dense, lambda case: 1),
    "linear_dgrad": Kernel(_linear_dgrad, _is_dense, lambda case: 1),
    "linear_wgrad": Kernel(_linear_wgrad, _is_dense, lambda case: 1),
    "relu_fwd": Kernel(_relu_fwd, _is_map),
    "relu_bwd": Kernel(_relu_bwd, _is_map),
    "max_pool2d_fwd": Kernel(_max_pool2d_fwd, _is_image),
    "max_pool2d_bwd": Kernel(_max_pool2d_bwd, _is_image),
    "batch_norm2d_fwd": Kernel(_batch_norm2d_fwd, _is_map),
    "batch_norm2d_bwd": Kernel(_batch_norm2d_bwd, _is_map),
    "cross_entropy_fwd": Kernel(_cross_entropy_fwd, _is_dense),
    "adam_step": Kernel(_adam_step, _is_dense),
}
"""What ``stapes bench ops`` can be asked for. Gradients of weights include the bias's."""


def flops(kernel: Kernel, case: ConvCase, y_size: int) -> int:
    """Count the operations of the dense convolution that the operator does; 0 for others."""
    return kernel.products(case) * 2 * y_size * int(np.prod(case.w[1:]))
