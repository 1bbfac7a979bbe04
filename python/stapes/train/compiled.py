"""What `Sequential.compile` makes of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes.device import cuda_reason
from stapes.losses import CrossEntropyLoss, MSELoss
from stapes.nn.chain import _Chain
from stapes.nn.linear import _Weighted
from stapes.train import metrics as _metrics
from stapes.train.cpu import CpuRuntime, can_record
from stapes.train.device_step import DeviceStep
from stapes.train.plan import Plan
from stapes.train.runtime import Runtime

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
_ON_CPU = ("fp32", "fp64")
_ON_CUDA = ("fp32", "fp32_split", "tf32", "bf16", "fp16")
_PRECISIONS = tuple(dict.fromkeys((*_ON_CPU, *_ON_CUDA)))


@dataclass
class Compiled:
    """A network's training: optimizer, loss, metrics and plan.

    Attributes
    ----------
    targets : str
        What the loss takes; see `stapes.train.batches.Targets`.
    device : str
        Where the network is, as `stapes.nn.Layer.to` names it.
    runtime : Runtime or None
        None: the CPU, for a step that cannot be recorded; it is in `stapes.train.engine`.
    """

    optimizer: Optimizer
    loss: Callable[[Any, Any], tuple[Any, Any]]
    targets: str
    metrics: tuple[MetricLike, ...]
    precision: str
    dtype: np.dtype[Any]
    plan: Plan
    device: str
    runtime: Runtime | None
    step: DeviceStep | None

    def new_metrics(self) -> list[_metrics.Metric]:
        """Return the metrics, with no samples seen."""
        return _metrics.create(self.metrics)

    @property
    def entropy(self) -> bool:
        """Whether the loss is a cross-entropy, so that outputs are logits until `predict`."""
        return "entropy" in self.targets

    @property
    def late(self) -> int:
        """Steps whose numbers may be on their way while the next one is prepared."""
        return 0 if self.runtime is None else self.runtime.late

    @property
    def ignored(self) -> int:
        """Class id of targets that do not count."""
        return int(getattr(self.loss, "ignore_index", _metrics.IGNORED))


def compile_model(
    model: _Chain,
    optimizer: str | Optimizer,
    loss: LossLike,
    metrics: Iterable[MetricLike] | None,
    device: str | Runtime,
    precision: str,
    fuse: bool,
) -> Compiled:
    """Check the arguments, bring the weights to the device and the precision, and plan.

    Raises
    ------
    ValueError
        For a name that is not known, or a device or precision that is not there.
    TypeError
        For an argument of another type.
    """
    runtime = _runtime(device, precision)
    dtype = np.dtype(np.float64 if precision == "fp64" else np.float32)
    rounded = _rounded(precision)
    chosen = _optimizer(optimizer)
    function, targets = _loss(loss)
    entropy = "entropy" in targets
    if isinstance(metrics, str) or (metrics is not None and not isinstance(metrics, Iterable)):
        raise TypeError(f"compile: metrics must be a list, got {metrics!r}")
    named = (("accuracy",) if entropy else ()) if metrics is None else tuple(metrics)
    _metrics.create(named)
    place = "cpu" if runtime is None else runtime.device
    plan = Plan(model, fuse=fuse, probabilities=entropy, on_cpu=place == "cpu", rounded=rounded)
    if not plan.stages:
        raise ValueError("compile: the network has no layers that compute anything")
    if any(layer.dtype != dtype for layer in plan.layers):
        model.astype(dtype)
    if any(layer.device != place for layer in (model, *plan.layers)):
        model.to(place)
    for layer in plan.layers:
        if isinstance(layer, _Weighted):
            layer._precision = precision if precision in ("fp32_split", "tf32") else "fp32"
    if runtime is None and can_record(*plan.buffered, function, chosen):
        runtime = CpuRuntime()
    step = None
    if runtime is not None:
        step = DeviceStep(
            plan, function, chosen, runtime, dtype,
            outputs=bool(named), scaled=precision == "fp16",
        )  # fmt: skip
    return Compiled(chosen, function, targets, named, precision, dtype, plan, place, runtime, step)


def _runtime(device: str | Runtime, precision: str) -> Runtime | None:
    if precision not in _PRECISIONS:
        known = ", ".join(_PRECISIONS)
        raise ValueError(f"compile: precision must be one of {known}, got {precision!r}")
    runtime = _chosen(device, precision)
    if runtime is None:
        if precision not in _ON_CPU:
            reason = cuda_reason() or 'the device is "cpu"'
            raise ValueError(f"compile: precision {precision!r} needs CUDA: {reason}")
    elif precision not in runtime.precisions:
        raise ValueError(
            f"compile: precision {precision!r} is not to be had on {runtime.device}: there are"
            f" {', '.join(runtime.precisions)}{runtime.why_not(precision)}"
        )
    return runtime


def _chosen(device: str | Runtime, precision: str) -> Runtime | None:
    if isinstance(device, Runtime):
        return device
    kind = device.partition(":")[0] if isinstance(device, str) else None
    if device == "cpu" or (device == "auto" and (precision == "fp64" or cuda_reason())):
        return None
    if device != "auto" and kind != "cuda":
        raise ValueError(f'compile: device must be "auto", "cpu" or "cuda", got {device!r}')
    from stapes.train.cuda import CudaRuntime

    return CudaRuntime("cuda" if device == "auto" else device)


def _rounded(precision: str) -> np.dtype[Any] | None:
    if precision == "bf16":
        try:
            import ml_dtypes
        except ImportError:
            raise ValueError(
                "compile: precision 'bf16' needs ml_dtypes: pip install ml_dtypes"
            ) from None
        return np.dtype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    return np.dtype(np.float16) if precision == "fp16" else None


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
