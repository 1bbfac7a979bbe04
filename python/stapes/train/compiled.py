"""What `Sequential.compile` makes of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes.device import cuda_reason
from stapes.losses import CrossEntropyLoss, MSELoss
from stapes.nn.chain import _Chain
from stapes.train import metrics as _metrics
from stapes.train.plan import Plan

if TYPE_CHECKING:
    from stapes.optim import Optimizer

MetricLike = str | Callable[[Any, Any], Any]
LossLike = str | Callable[[Any, Any], tuple[Any, Any]]

_LOSSES: dict[str, Callable[[], Any]] = {
    "cross_entropy": CrossEntropyLoss,
    "categorical_crossentropy": CrossEntropyLoss,
    "sparse_categorical_crossentropy": CrossEntropyLoss,
    "mse": MSELoss,
}
_CPU_DTYPES: dict[str, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp64": np.dtype(np.float64),
}
_CUDA_ONLY = ("tf32", "bf16", "fp16")


@dataclass
class Compiled:
    """A network's training: optimizer, loss, metrics and plan.

    Attributes
    ----------
    targets : str
        What the loss takes; see `stapes.train.batches.Targets`.
    """

    optimizer: Optimizer
    loss: Callable[[Any, Any], tuple[Any, Any]]
    targets: str
    metrics: tuple[MetricLike, ...]
    precision: str
    dtype: np.dtype[Any]
    plan: Plan

    def new_metrics(self) -> list[_metrics.Metric]:
        """Return the metrics, with no samples seen."""
        return _metrics.create(self.metrics)

    @property
    def entropy(self) -> bool:
        """Whether the loss is a cross-entropy, so that outputs are logits until `predict`."""
        return "entropy" in self.targets

    @property
    def ignored(self) -> int:
        """Class id of targets that do not count."""
        return int(getattr(self.loss, "ignore_index", _metrics.IGNORED))


def compile_model(
    model: _Chain,
    optimizer: str | Optimizer,
    loss: LossLike,
    metrics: Iterable[MetricLike] | None,
    device: str,
    precision: str,
    fuse: bool,
) -> Compiled:
    """Check the arguments, convert the weights to the precision, and plan.

    Raises
    ------
    ValueError
        For a name that is not known, or a device or precision that is not there.
    TypeError
        For an argument of another type.
    """
    _check_device(device)
    dtype = _dtype(precision)
    chosen = _optimizer(optimizer)
    function, targets = _loss(loss)
    entropy = "entropy" in targets
    if isinstance(metrics, str) or (metrics is not None and not isinstance(metrics, Iterable)):
        raise TypeError(f"compile: metrics must be a list, got {metrics!r}")
    named = (("accuracy",) if entropy else ()) if metrics is None else tuple(metrics)
    _metrics.create(named)
    plan = Plan(model, fuse=fuse, probabilities=entropy)
    if not plan.stages:
        raise ValueError("compile: the network has no layers that compute anything")
    if any(layer.dtype != dtype for layer in plan.layers):
        model.astype(dtype)
    return Compiled(chosen, function, targets, named, precision, dtype, plan)


def _check_device(device: str) -> None:
    if device in ("auto", "cpu"):
        return
    if device.partition(":")[0] != "cuda":
        raise ValueError(f'compile: device must be "auto", "cpu" or "cuda", got {device!r}')
    reason = cuda_reason()
    if reason is not None:
        raise ValueError(f"compile: device {device!r} cannot be used: {reason}")


def _dtype(precision: str) -> np.dtype[Any]:
    if precision in _CUDA_ONLY:
        raise ValueError(f"compile: precision {precision!r} needs CUDA: {cuda_reason()}")
    if precision not in _CPU_DTYPES:
        known = ", ".join((*_CPU_DTYPES, *_CUDA_ONLY))
        raise ValueError(f"compile: precision must be one of {known}, got {precision!r}")
    return _CPU_DTYPES[precision]


def _optimizer(optimizer: str | Optimizer) -> Optimizer:
    # Imported here, because stapes.optim imports stapes.nn, and that the network, and that this.
    from stapes.optim import SGD, Adam, AdamW, Optimizer

    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"compile: optimizer must be a name or an Optimizer, got {optimizer!r}")
    named: dict[str, Callable[[], Optimizer]]
    named = {"adam": Adam, "adamw": AdamW, "sgd": lambda: SGD(lr=0.01)}
    if optimizer not in named:
        known = ", ".join(named)
        raise ValueError(f"compile: optimizer must be one of {known}, got {optimizer!r}")
    return named[optimizer]()


def _loss(loss: LossLike) -> tuple[Callable[[Any, Any], tuple[Any, Any]], str]:
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise ValueError(f"compile: loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
        return _LOSSES[loss](), loss
    if isinstance(loss, CrossEntropyLoss):
        return loss, "cross_entropy"
    if isinstance(loss, MSELoss):
        return loss, "mse"
    if not callable(loss):
        raise TypeError(f"compile: loss must be a name or callable, got {loss!r}")
    return loss, "custom"
