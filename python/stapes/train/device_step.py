"""A training step on a device: forward, loss, backward and optimizer as one launch.

What changes from step to step lies in memory of the device: the batch; the learning rate, the step
count and dropout's offsets, which one small copy brings; and the loss scale, which never leaves it.
So the same launch (on CUDA, a graph) serves for all steps of one shape, and nothing waits for the
device: the loss is read when it has come, a few steps later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stapes.device import Array, is_cupy
from stapes.nn.activation import Dropout
from stapes.nn.parameter import Parameter
from stapes.train.errors import DivergedError, first_not_finite
from stapes.train.feeding import Feed, Numbers
from stapes.train.pending import Pending
from stapes.train.plan import SHAPES_KEPT, Plan
from stapes.train.runtime import Program, Runtime
from stapes.train.scaling import Guard, LossScale
from stapes.train.watch import Watch

if TYPE_CHECKING:
    from stapes.optim import Optimizer

Loss = Callable[[Any, Any], tuple[Any, Any]]


class DeviceStep:
    """What `Sequential.compile` makes for a device.

    Parameters
    ----------
    plan : Plan
    loss : callable
        ``loss, grad = f(output, target)``, computed on the device.
    optimizer : Optimizer
    runtime : Runtime
    dtype : dtype
        Of inputs and weights.
    outputs : bool
        Whether metrics need the network's outputs.
    scaled : bool
        Scale the loss, and leave steps out that overflow.
    """

    def __init__(
        self,
        plan: Plan,
        loss: Loss,
        optimizer: Optimizer,
        runtime: Runtime,
        dtype: np.dtype[Any],
        *,
        outputs: bool,
        scaled: bool,
    ) -> None:
        self.plan, self.loss, self.optimizer = plan, loss, optimizer
        self.runtime, self.dtype, self.outputs = runtime, dtype, outputs
        with runtime.scope():
            self.scale = LossScale(runtime) if scaled else None
            self.guard = Guard(runtime, dtype, self.scale)
            plan.scale_gradients(None if self.scale is None else self.scale.factor)
            self.dropouts = [layer for layer in plan.layers if isinstance(layer, Dropout)]
            self._numbers = Numbers(runtime, len(self.dropouts))
        self._steps_seen = optimizer.steps
        self._shapes: OrderedDict[tuple[Any, ...], tuple[_Shape, Program]] = OrderedDict()
        self._watch: Watch | None = None
        self._new = False  # programs that have not run: their first run makes arrays
        self._parameters: list[Parameter] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy make its own programs."""
        made = partial(DeviceStep, outputs=self.outputs, scaled=self.scale is not None)
        arguments = self.plan, self.loss, self.optimizer, self.runtime, self.dtype
        return made, arguments, self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(state)

    def launch(self, x: Array, target: Array, where: str) -> Launched:
        """Start a step.

        Parameters
        ----------
        x : array
            (N, ...), on the host or the device.
        target : array
            As the loss takes it, on the host or the device.
        where : str
            Names the step in errors.
        """
        with self.runtime.scope():
            shape, program = self._prepared(self.compute, x, target)
            if self.runtime.late == 0:  # a bad step is reported before there is another
                self.guard.reset()
            steps, offsets = self.optimizer.steps, [d.offset for d in self.dropouts]
            slot = self._numbers.write(self.optimizer.lr, self._count(steps), offsets)
            program()
            offsets = shape.advanced(offsets)
            self._move_to(steps + 1, offsets)
            launched = Launched(self, shape, x, target, where, (steps, offsets))
            slot.used = launched.event
            self._done()
        return launched

    def measure(self, x: Array, target: Array) -> Launched:
        """Start to compute loss and outputs in inference mode; a loss may be NaN here."""
        with self.runtime.scope():
            shape, program = self._prepared(self.compute_loss, x, target)
            program()
            launched = Launched(self, shape, x, target, None, None)
            self._done()
        return launched

    def compute(self, shape: _Shape) -> None:
        """Do a step's work on the device; what is captured."""
        plan, extra = self.plan, {}
        for i, layer in enumerate(self.dropouts):
            layer._device_offset = self._numbers.offset(i)
        try:
            with plan.buffers(shape.x.shape) as shape.slots:
                output = plan.forward(shape.x)
                value, grad = self.loss(output, shape.target)
                shape.value, shape.output = self._on_device(value), output
                plan.backward(grad)
        finally:
            for layer in self.dropouts:
                layer._device_offset = None
        self.guard.check(shape.value, [p.grad for p in self._parameters])
        if plan.rounded is not None:
            extra["copies"] = [p.rounded for p in self._parameters]
        step = self._numbers.step
        if self.scale is not None:
            extra["grad_scale"], step = self.scale.factor, self.scale.step
        lr = self._numbers.lr
        self.optimizer._update(self._parameters, lr, step, found_inf=self.guard.found, **extra)
        if self.scale is not None:
            self.scale.update(self.guard.found)

    def compute_loss(self, shape: _Shape) -> None:
        """Do the device's part of `measure`."""
        with self.plan.buffers(shape.x.shape) as shape.slots:
            shape.output = self.plan.forward(shape.x)
            shape.value = self._on_device(self.loss(shape.output, shape.target)[0])

    def diverged(self, launched: Launched, x: Any) -> str:
        """Say which layer was it, and go back to the position before a step that failed."""
        with self.runtime.scope():
            assert launched.position is not None
            self._move_to(*launched.position)
            model = self.plan.model
            text = first_not_finite(model, self.plan.entering(self.runtime.put(x, self.dtype)))
            self.guard.reset()
        return text

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside weights and optimizer; waits for the device."""
        with self.runtime.scope():
            return {} if self.scale is None else {"scale": self.scale.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state_dict`; the optimizer has its own already."""
        if self.scale is not None:
            with self.runtime.scope():
                self.scale.load_state_dict(state["scale"])
        self._steps_seen = self.optimizer.steps

    def _prepared(
        self, compute: Callable[[_Shape], None], x: Array, target: Array
    ) -> tuple[_Shape, Program]:
        """Return a batch's shape and the program for it, maybe new ones, and feed it the batch."""
        if self._watch is None or self._watch.changed():
            self._forget(list(self._shapes))
            self._watch = None
        key = compute.__name__, x.shape, target.shape, target.dtype
        if key not in self._shapes:
            self._new = True
            shape = _Shape(self, *key[1:])
            self._shapes[key] = shape, self.runtime.program(partial(compute, shape))
            self.plan.model._input(shape.x)  # draws the weights where they are not drawn yet
            self._parameters = self.plan.model.parameters()
            alike = [other for other in self._shapes if other[0] == key[0]]
            self._forget(alike[:-SHAPES_KEPT])
        self._shapes.move_to_end(key)
        shape, program = self._shapes[key]
        shape.feed(x, target)
        self.plan.refresh()
        return shape, program

    def _forget(self, keys: list[tuple[Any, ...]]) -> None:
        """Give up programs, once no copy is on its way to or from their memory."""
        if keys:
            self.runtime.mark().synchronize()
        for key in keys:
            del self._shapes[key]

    def _done(self) -> None:
        """Know the arrays and settings that programs were made with."""
        if self._new or self._watch is None:
            self._watch = Watch(self.plan.layers, self.optimizer, self.loss)
            self._new = False

    def _count(self, steps: int) -> int:
        """Return the optimizer's step count; where others have changed it, the device's follows."""
        if self.scale is not None and steps != self._steps_seen:
            self.scale.step[...] = steps + 1
        return steps + 1

    def _move_to(self, steps: int, offsets: list[int]) -> None:
        self.optimizer.steps = self._steps_seen = steps
        for layer, offset in zip(self.dropouts, offsets, strict=True):
            layer.offset = offset

    def _on_device(self, value: Any) -> Array:
        if self.runtime.device == "cpu":
            return np.asarray(value, self.dtype).reshape(())
        if not is_cupy(value) or value.size != 1:
            raise TypeError(
                "compile: on CUDA the loss must return a CuPy array of one number, which stays on"
                f" the device, got {type(value).__name__}"
            )
        return value.astype(self.dtype, copy=False).reshape(())


class Launched(Pending):
    """A step under way on a device."""

    __slots__ = ("_host", "_owner", "_where", "_x", "event", "position")

    def __init__(
        self,
        owner: DeviceStep,
        shape: _Shape,
        x: Array,
        target: Array,
        where: str | None,
        position: tuple[int, list[int]] | None,
    ) -> None:
        super().__init__(len(x), np.nan, None, target)
        self._owner, self._x, self._where = owner, x, where
        self.position = position
        self._host = shape.read(with_target=is_cupy(target))
        self.event = owner.runtime.mark()

    def wait(self) -> None:
        owner = self._owner
        if self._x is None:
            return
        self.event.synchronize()
        x, self._x = self._x, None
        loss, self.output, target = self._host
        self.loss = float(loss)
        if target is not None:
            self.target = target
        if self._where is not None and not np.isfinite(self.loss):
            text = owner.diverged(self, x)
            raise DivergedError(f"{self._where}: the loss is {self.loss}; {text}")


class _Shape:
    """Buffers of a step for one shape of inputs and targets.

    It does not hold its program, which holds it: so both go at once when they are given up, and not
    when garbage is collected next.
    """

    value: Array  # the loss
    output: Array
    slots: Any  # the plan's buffers: it may forget them, a graph has their addresses

    def __init__(
        self,
        owner: DeviceStep,
        x_shape: tuple[int, ...],
        target_shape: tuple[int, ...],
        target_dtype: np.dtype[Any],
    ) -> None:
        self._owner, runtime = owner, owner.runtime
        self.x = runtime.empty(x_shape, owner.dtype)
        self.target = runtime.empty(target_shape, target_dtype)
        self._feeds = Feed(runtime, self.x), Feed(runtime, self.target)
        self._advance: list[int] | None = None
        self._staging: Iterator[list[NDArray[Any]]] | None = None

    def feed(self, x: Array, target: Array) -> None:
        for feed, batch in zip(self._feeds, (x, target), strict=True):
            feed(batch)

    def advanced(self, offsets: list[int]) -> list[int]:
        """Return where dropout's offsets are after a step that began with these."""
        if self._advance is None:
            now = (layer.offset for layer in self._owner.dropouts)
            self._advance = [a - b for a, b in zip(now, offsets, strict=True)]
        return [a + b for a, b in zip(offsets, self._advance, strict=True)]

    def read(
        self, *, with_target: bool
    ) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
        """Start to read the loss, and what metrics need, into host memory.

        Parameters
        ----------
        with_target : bool
            Read the target too, which is not on the host.

        Returns
        -------
        tuple
            The loss, the outputs and the target; None for what is not read.
        """
        runtime, wanted = self._owner.runtime, self._owner.outputs
        arrays = [self.value, *((self.output, self.target) if wanted else ())]
        if self._staging is None:
            rounds = range(runtime.late + 1)
            self._staging = cycle(
                [[runtime.staging(a.shape, a.dtype) for a in arrays] for _ in rounds]
            )
        hosts = next(self._staging)
        read = len(arrays) if with_target else min(len(arrays), 2)
        for array, host in zip(arrays[:read], hosts, strict=False):
            runtime.download(array, host)
        output, wanted_target, *_ = (*hosts[1:read], None, None)
        return hosts[0], output, wanted_target
