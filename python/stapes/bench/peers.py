"""The same operators in PyTorch: in either memory layout, and oneDNN's own blocked one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from stapes.bench.kernels import WIDE, is_first
from stapes.bench.shapes import ConvCase
from stapes.device import Array

Peer = Callable[[Any, ConvCase], Callable[[], Any]]
"""Tensors and the shape to work that can be repeated and gives a tensor or a tuple of them."""

NAMES = {
    "torch": "PyTorch, channels_last",
    "torch-nchw": "PyTorch, NCHW",
    "onednn": "oneDNN's blocked layout, through PyTorch; forward only, no places of maxima",
}


def installed() -> list[str]:
    """Return the peers to compare with where none is named."""
    return ["torch", "torch-nchw"] if find_spec("torch") else []


def check(names: str | None) -> list[str]:
    """Return the peers of a list such as "torch,onednn"; installed ones if None.

    Raises
    ------
    ValueError
        If there is no such peer, or PyTorch is not installed.
    """
    found = installed() if names is None else [name for name in names.split(",") if name]
    for name in found:
        if name not in NAMES:
            raise ValueError(f"--peer: {name!r} is none of {', '.join(NAMES)}")
    if found and not find_spec("torch"):
        raise ValueError("--peer: PyTorch is not installed (pip install torch)")
    return found


def chosen(names: str | None, threads: int) -> list[str]:
    """Check the names, and make PyTorch ready: threads, and no TF32 in what is called float32."""
    found = check(names)
    if found:
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return found


def work(
    peer: str, op: str, arrays: dict[str, Any], case: ConvCase, dtype: str, device: str
) -> Callable[[], Any] | None:
    """Return the operator as the peer does it, None where it has none.

    Parameters
    ----------
    peer, op : str
        Of `NAMES` and of `stapes.bench.kernels.KERNELS`.
    arrays : dict of str to ndarray
        Of `stapes.bench.kernels.host_arrays`.
    """
    torch = importlib.import_module("torch")
    table = ONEDNN if peer == "onednn" else TORCH
    if op not in table or (peer == "onednn" and (dtype != "float32" or device != "cpu")):
        return None
    last = peer != "torch-nchw"
    tensors = {name: _tensor(torch, name, a, dtype, device, last) for name, a in arrays.items()}
    made = table[op](SimpleNamespace(torch=torch, **tensors), case)

    def run() -> Any:
        with torch.inference_mode():
            return made()

    return run


def to_host(value: Any) -> Array:
    """Return a tensor in our layout."""
    value = value.to_dense() if value.is_mkldnn else value
    wide = value.detach().double().cpu()
    array: Array = (wide.permute(0, 2, 3, 1) if wide.ndim == 4 else wide).numpy()
    return array


def _tensor(torch: Any, name: str, array: Any, dtype: str, device: str, last: bool) -> Any:
    tensor = torch.from_numpy(array).to(device)
    if array.dtype.kind == "f" and name not in WIDE:
        tensor = tensor.to(getattr(torch, dtype))
    if tensor.ndim != 4:
        return tensor
    layout = torch.channels_last if last else torch.contiguous_format
    return tensor.permute(0, 3, 1, 2).contiguous(memory_format=layout)


def _both(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value, value]


def _conv_args(case: ConvCase) -> tuple[Any, ...]:
    return _both(case.stride), _both(case.padding), _both(case.dilation), case.groups


def _conv2d_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    args = _conv_args(case)
    return lambda: t.torch.conv2d(t.x, t.w, t.b, *args)


def _back(t: Any, case: ConvCase, dy: Any, mask: list[bool]) -> Any:
    stride, padding, dilation, groups = _conv_args(case)
    return t.torch.ops.aten.convolution_backward(
        dy, t.x, t.w, [case.w[0]], stride, padding, dilation, False, [0, 0], groups, mask
    )


def _conv2d_dgrad(t: Any, case: ConvCase) -> Callable[[], Any]:
    return lambda: _back(t, case, t.dy, [True, False, False])[0]


def _conv2d_wgrad(t: Any, case: ConvCase) -> Callable[[], Any]:
    return lambda: _back(t, case, t.dy, [False, True, True])[1:]


_POOLING = ([2, 2], [2, 2], [0, 0], [1, 1], False)


def _pooled_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    args = _conv_args(case)

    def run() -> Any:
        z = t.torch.conv2d(t.x, t.w, t.b, *args).relu_()
        return t.torch.ops.aten.max_pool2d_with_indices(z, [2, 2])[0]

    return run


def _pooled_bwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    aten = t.torch.ops.aten
    z = t.torch.conv2d(t.x, t.w, t.b, *_conv_args(case)).relu_()
    indices = aten.max_pool2d_with_indices(z, [2, 2])[1]
    need_dx = not is_first(case)

    def run() -> Any:
        dz = aten.max_pool2d_with_indices_backward(t.dp, z, *_POOLING, indices)
        dz = aten.threshold_backward(dz, z, 0)
        return _back(t, case, dz, [need_dx, True, True])[0 if need_dx else 1 :]

    return run


def _flat(t: Any) -> tuple[Any, Any, Any]:
    return t.x.flatten(1), t.w.flatten(1), t.dy.flatten(1)


def _linear_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    x, w, _ = _flat(t)
    return lambda: t.torch.nn.functional.linear(x, w, t.b)


def _linear_dgrad(t: Any, case: ConvCase) -> Callable[[], Any]:
    _, w, dy = _flat(t)
    return lambda: dy @ w


def _linear_wgrad(t: Any, case: ConvCase) -> Callable[[], Any]:
    x, _, dy = _flat(t)
    return lambda: (dy.t() @ x, dy.sum(0))


def _relu_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    y = t.torch.empty_like(t.y)
    return lambda: t.torch.clamp_min(t.y, 0, out=y)


def _relu_bwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    y = t.y.relu()
    return lambda: t.torch.ops.aten.threshold_backward(t.dy, y, 0)


def _max_pool2d_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    return lambda: t.torch.ops.aten.max_pool2d_with_indices(t.y, [2, 2])[0]


def _max_pool2d_bwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    aten = t.torch.ops.aten
    indices = aten.max_pool2d_with_indices(t.y, [2, 2])[1]
    return lambda: aten.max_pool2d_with_indices_backward(t.dp, t.y, *_POOLING, indices)


def _batch_norm2d_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    mean, var = t.mean.clone(), t.var.clone()
    norm = t.torch.ops.aten.native_batch_norm
    return lambda: norm(t.y, t.gamma, t.beta, mean, var, True, 0.1, 1e-5)


def _batch_norm2d_bwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    aten = t.torch.ops.aten
    _, *saved = aten.native_batch_norm(t.y, t.gamma, t.beta, None, None, True, 0.1, 1e-5)
    mask = [True, True, True]
    return lambda: aten.native_batch_norm_backward(
        t.dy, t.y, t.gamma, None, None, *saved, True, 1e-5, mask
    )


def _cross_entropy_fwd(t: Any, case: ConvCase) -> Callable[[], Any]:
    aten, mean, none_ignored = t.torch.ops.aten, 1, -100
    one = t.torch.ones((), dtype=t.logits.dtype, device=t.logits.device)

    def run() -> Any:
        log = aten._log_softmax(t.logits, 1, False)
        loss, total = aten.nll_loss_forward(log, t.ids, None, mean, none_ignored)
        back = aten.nll_loss_backward(one, log, t.ids, None, mean, none_ignored, total)
        return loss, aten._log_softmax_backward_data(back, log, 1, log.dtype)

    return run


def _adam_step(t: Any, case: ConvCase) -> Callable[[], Any]:
    adam = t.torch.ops.aten._fused_adam_
    w, m, v = t.weights.clone(), t.m.clone(), t.v.clone()
    step = t.torch.tensor(10.0, device=w.device)
    options = {
        "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8,
        "amsgrad": False, "maximize": False,
    }  # fmt: skip

    def run() -> Any:
        adam([w], [t.grad], [m], [v], [], [step], **options)
        return w, m, v

    return run


def _blocked(t: Any, case: ConvCase) -> Callable[[], Any]:
    """Return the convolution over a map and weights that are in oneDNN's layout already."""
    stride, padding, dilation, groups = _conv_args(case)
    x = t.x.contiguous().to_mkldnn()
    w = t.torch._C._nn.mkldnn_reorder_conv2d_weight(
        t.w.contiguous().to_mkldnn(), padding, stride, dilation, groups
    )
    return lambda: t.torch.mkldnn_convolution(x, w, t.b, padding, stride, dilation, groups)


def _blocked_pooled(t: Any, case: ConvCase) -> Callable[[], Any]:
    conv = _blocked(t, case)
    return lambda: t.torch.mkldnn_max_pool2d(t.torch.relu_(conv()), [2, 2], [2, 2])


TORCH: dict[str, Peer] = {
    "conv2d_fwd": _conv2d_fwd,
    "conv2d_dgrad": _conv2d_dgrad,
    "conv2d_wgrad": _conv2d_wgrad,
    "conv2d_relu_max_pool2d_fwd": _pooled_fwd,
    "conv2d_relu_max_pool2d_bwd": _pooled_bwd,
    "linear_fwd": _linear_fwd,
    "linear_dgrad": _linear_dgrad,
    "linear_wgrad": _linear_wgrad,
    "relu_fwd": _relu_fwd,
    "relu_bwd": _relu_bwd,
    "max_pool2d_fwd": _max_pool2d_fwd,
    "max_pool2d_bwd": _max_pool2d_bwd,
    "batch_norm2d_fwd": _batch_norm2d_fwd,
    "batch_norm2d_bwd": _batch_norm2d_bwd,
    "cross_entropy_fwd": _cross_entropy_fwd,
    "adam_step": _adam_step,
}

ONEDNN: dict[str, Peer] = {
    "conv2d_fwd": _blocked,
    "conv2d_relu_max_pool2d_fwd": _blocked_pooled,
}
