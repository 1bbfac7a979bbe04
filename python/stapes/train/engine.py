"""What a compiled network does with one batch, and with data: behind the Keras verbs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes import ops
from stapes.device import Array, is_cupy, to_device
from stapes.nn.chain import _Chain
from stapes.nn.layer import Layer, Shape
from stapes.train import metrics as _metrics
from stapes.train.batches import Source, Targets, as_source, check_alike, unaugmented
from stapes.train.compiled import Compiled
from stapes.train.cpu import Forward
from stapes.train.errors import DivergedError, first_not_finite
from stapes.train.pending import Pending
from stapes.train.plan import Plan
from stapes.train.runtime import Runtime

if TYPE_CHECKING:
    from stapes.optim import Optimizer


class Engine(_Chain):
    """A chain of layers that can be compiled, and what it then computes; see `KerasVerbs`."""

    classes: list[str] | None = None
    features: Any = None
    clip_seconds: float | None = None
    _compiled: Compiled | None = None
    _inference: Plan | None = None
    _forward: Forward
    _inference_runtime: Runtime | None = None
    _probabilities: bool = False  # outputs are logits until predict

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer given to `compile`; None before."""
        return None if self._compiled is None else self._compiled.optimizer

    def _ready(self) -> Compiled:
        compiled = self._compiled
        if compiled is None:
            raise RuntimeError("the network is not compiled: call compile() first")
        if not compiled.plan.is_current():
            raise RuntimeError("layers were added or removed after compile(): call compile() again")
        if self.device != compiled.device:
            raise RuntimeError("the device was changed after compile(): call compile() again")
        dtype = compiled.dtype
        for layer in compiled.plan.layers:
            if layer.dtype != dtype:
                raise RuntimeError("the dtype was changed after compile(): call compile() again")
            for p in layer._parameters.values():
                if p._data.dtype != dtype:  # assigned in another one after compile
                    p.replace(p._data.astype(dtype))
        return compiled

    def _runtime(self) -> Runtime | None:
        """Return the device that was compiled for, or the one that the weights are on."""
        if self._compiled is not None:
            return self._compiled.runtime
        if self.device == "cpu":
            return None
        if self._inference_runtime is None or self._inference_runtime.device != self.device:
            from stapes.train.cuda import CudaRuntime

            self._inference_runtime = CudaRuntime(self.device)
        return self._inference_runtime

    def _scope(self) -> AbstractContextManager[None]:
        runtime = self._runtime()
        return nullcontext() if runtime is None else runtime.scope()

    def _plan(self) -> Plan:
        """Return the plan for inference; that of training, where weights have 16-bit copies."""
        compiled = None if self._compiled is None else self._ready()
        if compiled is not None and compiled.plan.rounded is not None:
            return compiled.plan
        if self._inference is None or not self._inference.is_current():
            fuse = compiled is None or compiled.plan.fuse
            self._inference = Plan(
                self, fuse=fuse, probabilities=self._probabilities, inference=True
            )
            self._forward = Forward(self._inference)
        return self._inference

    def _run_plan(self, plan: Plan, x: Array) -> Array:
        """Run a plan; the result is a buffer's content, to be copied."""
        if plan is self._inference and self.device == "cpu":
            return self._forward(x)
        if plan.rounded is not None:
            self._input(x)
            plan.refresh()
        with plan.buffers(x.shape):
            return plan.forward(x)

    def _finish(self, output: Array) -> Array:
        """Return what `predict` gives, as a new array, from what the plan gives."""
        return ops.softmax_fwd(output) if self._probabilities else output.copy()

    def _step(self, x: Any, y: Any, where: str) -> Pending:
        """Forward, backward, update; on a device they may still be under way afterwards."""
        compiled = self._ready()
        self._check_place(x)
        target = self._targets(x.shape[1:])(y, len(x))
        if compiled.step is not None:
            pending: Pending = compiled.step.launch(x, target, where)
            return pending
        x, plan = self._batch(x), compiled.plan
        with plan.buffers(x.shape):
            output = plan.forward(x)
            value, grad = compiled.loss(output, target)
            loss = float(value)
            if not np.isfinite(loss):
                raise DivergedError(f"{where}: the loss is {loss}; {first_not_finite(self, x)}")
            plan.backward(grad)
        compiled.optimizer.step(self.parameters())
        return Pending(len(x), loss, output, target)

    def _evaluate(
        self,
        source: Source,
        batch_size: int,
        check: Callable[[], None],
        where: str | None = None,
    ) -> dict[str, float]:
        """Return loss and metrics; with ``where``, a loss that is not finite is an error."""
        compiled = self._ready()
        loss = _metrics.Mean("loss", lambda output, target: 0.0)
        made = compiled.new_metrics()
        waiting: deque[tuple[Any, Pending]] = deque()

        def settle(late: int) -> None:
            while len(waiting) > late:
                x, pending = waiting.popleft()
                pending.wait()
                loss.add(pending.loss, pending.samples)
                if where is not None and not np.isfinite(loss.result()):
                    what = f"the validation loss is {loss.result()}"
                    entering = compiled.plan.entering(self._batch(x))
                    raise DivergedError(f"{where}: {what}; {first_not_finite(self, entering)}")
                self._measure(made, pending.output, pending.target)

        with self._scope(), self._mode(training=False):
            for x, y in source.batches(batch_size, shuffle=False, seed=0):
                check()
                waiting.append((x, self._assess(x, y)))
                settle(compiled.late)
            settle(0)
        return _metrics.results([loss, *made])

    def _assess(self, x: Any, y: Any) -> Pending:
        """Loss and outputs of a batch; on a device they may come later."""
        compiled = self._ready()
        self._check_place(x)
        target = self._targets(x.shape[1:])(y, len(x))
        if compiled.step is not None:
            return compiled.step.measure(x, target)
        output = self._run_plan(compiled.plan, self._batch(x))
        return Pending(len(x), float(compiled.loss(output, target)[0]), output, target)

    def _measure(self, metrics: list[_metrics.Metric], output: Array, target: Any) -> None:
        """Add a batch, on the host, to metrics."""
        compiled = self._compiled
        if not metrics or compiled is None:
            return
        if compiled.ignored != _metrics.IGNORED and target.ndim == 1:
            target = np.where(target == compiled.ignored, _metrics.IGNORED, target)
        for metric in metrics:
            # Probabilities only for those that need them: softmax does not change the largest.
            exact = isinstance(metric, _metrics.Mean)
            metric.update(self._finish(output) if exact else output, target)

    def _batch(self, x: Any) -> Array:
        """Return a batch as the network takes it: contiguous, in the dtype of the weights."""
        dtype = self.layers[0].dtype if self.layers else self.dtype
        runtime = self._runtime()
        self._check_place(x)
        return np.ascontiguousarray(x, dtype=dtype) if runtime is None else runtime.put(x, dtype)

    def _check_place(self, x: Any) -> None:
        """Raise TypeError for inputs on a GPU to a network on the CPU."""
        if is_cupy(x) and self.device == "cpu":
            raise TypeError(
                f"x is on cuda:{x.device.id}, the network on the CPU: compile it with"
                ' device="cuda", or move it there by to("cuda")'
            )

    def _targets(self, sample_shape: Shape) -> Targets:
        compiled = self._compiled
        assert compiled is not None, "the verbs begin by _ready"
        key = (tuple(sample_shape), id(compiled))
        if self.__dict__.get("_targets_key") != key:
            shape = self.build(sample_shape)
            self._targets_kept = Targets(compiled.targets, shape, compiled.dtype, compiled.ignored)
            self._targets_key = key
        return self._targets_kept

    def _source(self, x: Any, y: Any, what: str) -> Source:
        """Check inputs and targets as a whole, before anything is computed."""
        self._ready()
        source = as_source(x if what == "fit" else unaugmented(x), y, what)
        arrays = getattr(source, "x", None)
        if arrays is not None:
            y = to_device(y, "cpu") if is_cupy(y) else y
            source.y = self._targets(arrays.shape[1:])(y, len(source))  # type: ignore[attr-defined]
            return source
        first, _ = next(iter(source.batches(1, shuffle=False, seed=0)))
        self._targets(first.shape[1:])
        return source

    def _validation(self, given: Any, training: Source) -> Source:
        if hasattr(given, "batches"):
            source = self._source(given, None, "validation_data")
            check_alike("validation_data", source, training)
            return source
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError("fit: validation_data must be (x, y) or a data object")
        return self._source(given[0], given[1], "validation_data")

    def _adopt_data(self, source: Source) -> None:
        """Carry what a data object knows, so that the saved model can read sound files."""
        for name in ("classes", "features", "clip_seconds"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    @contextmanager
    def _mode(self, *, training: bool) -> Iterator[None]:
        """Within the block, all layers train or infer; afterwards each is as it was."""
        layers: list[Layer] = [self, *self._walk()]
        before = [layer.training for layer in layers]
        if training:
            self.train()
        else:
            self.eval()
        try:
            yield
        finally:
            for layer, mode in zip(layers, before, strict=True):
                layer.training = mode
