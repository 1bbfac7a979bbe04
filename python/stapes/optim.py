"""Optimizers. Update rules equal PyTorch's; learning rates may follow a schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from stapes import ops
from stapes.device import Array, array_module, device_of, to_device
from stapes.nn._args import fraction, thaw
from stapes.nn.parameter import Parameter
from stapes.ops._args import flag, integer
from stapes.schedules import (
    CosineLR,
    OneCycleLR,
    Schedule,
    StepLR,
    WarmupLR,
    rate,
    schedule_from_config,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "OneCycleLR",
    "Optimizer",
    "Schedule",
    "StepLR",
    "WarmupLR",
    "from_config",
]


class Optimizer:
    """Base class: step count, learning rate, and the arrays kept for each parameter.

    Attributes
    ----------
    steps : int
        Steps done.
    """

    _types: ClassVar[dict[str, type[Optimizer]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Optimizer._types[cls.__name__] = cls

    def __init__(self, lr: float | Schedule, weight_decay: float) -> None:
        self.lr = lr
        self.weight_decay = rate(type(self).__name__, "weight_decay", weight_decay)
        self.steps = 0
        self._state: dict[str, dict[str, Array]] = {}  # parameter -> slot -> array

    @property
    def _slots(self) -> tuple[str, ...]:
        """Names of the arrays kept for each parameter."""
        raise NotImplementedError

    @property
    def lr(self) -> float:
        """The learning rate of the next step. May be assigned: a number or a schedule."""
        return self._lr(self.steps) if isinstance(self._lr, Schedule) else self._lr

    @lr.setter
    def lr(self, value: float | Schedule) -> None:
        is_schedule = isinstance(value, Schedule)
        self._lr = value if is_schedule else rate(type(self).__name__, "lr", value)

    def step(self, parameters: Sequence[Parameter]) -> None:
        """Change every parameter by its gradient, all of them in one call.

        Parameters
        ----------
        parameters : list of Parameter
            The same ones at every step.

        Raises
        ------
        RuntimeError
            If a parameter has no gradient yet.
        ValueError
            If the parameters are others than before.
        """
        self._update(list(parameters), self.lr, self.steps + 1)
        for p in parameters:
            p._stale = True
        self.steps += 1

    def _update(
        self, parameters: list[Parameter], lr: float | Array, step: int | Array, **device: Any
    ) -> None:
        """Do a step's arithmetic.

        Parameters
        ----------
        parameters : list of Parameter
        lr, step
            Numbers, or arrays of one element on the parameters' device.
        **device
            ``copies``, ``grad_scale`` and ``found_inf``: see `stapes.ops.adam_step`.
        """
        for p in parameters:
            if p.grad is None:
                raise RuntimeError(
                    f"{type(self).__name__}.step: {p.name} has no gradient: run backward first"
                )
        if parameters:
            self._apply(
                [p._data for p in parameters],
                [p.grad for p in parameters],
                self._kept(parameters),
                lr,
                step,
                device,
            )

    def _apply(
        self,
        params: list[Array],
        grads: list[Array],
        kept: list[dict[str, Array]],
        lr: float | Array,
        step: int | Array,
        device: Mapping[str, Any],
    ) -> None:
        """Change ``params`` and what is ``kept`` for each, in place."""
        raise NotImplementedError

    def _arrays(self) -> list[Array]:
        """Return the arrays kept for all parameters."""
        return [array for kept in self._state.values() for array in kept.values()]

    def _kept(self, parameters: list[Parameter]) -> list[dict[str, Array]]:
        """Return the arrays kept for each parameter: zeros at the first step."""
        keys = _keys(parameters)
        if not self._state:
            self._state = {
                k: {s: array_module(p._data).zeros_like(p._data) for s in self._slots}
                for k, p in zip(keys, parameters, strict=True)
            }
        if set(keys) != set(self._state):
            raise ValueError(
                f"{type(self).__name__}.step: parameters must be those of the steps before,"
                f" {', '.join(self._state)}; got {', '.join(keys)}"
            )
        return [self._fitted(self._state[k], p) for k, p in zip(keys, parameters, strict=True)]

    def _fitted(self, kept: dict[str, Array], p: Parameter) -> dict[str, Array]:
        """Bring what is kept to the parameter's dtype and device, which may have changed."""
        for slot, array in kept.items():
            if tuple(array.shape) != p.shape:
                raise ValueError(
                    f"{type(self).__name__}.step: {slot} of {p.name} has shape {array.shape}, the"
                    f" parameter {p.shape}"
                )
            device = device_of(p._data)
            if array.dtype != p.dtype or device_of(array) != device:
                kept[slot] = to_device(array, device).astype(p.dtype)
        return kept

    # State.

    def config(self) -> dict[str, Any]:
        """Return type and arguments, JSON-able: `stapes.optim.from_config` makes it again."""
        names = inspect.signature(type(self)).parameters
        values = {n: self._lr if n == "lr" else getattr(self, n) for n in names}
        return {
            "type": type(self).__name__,
            **{n: v.config() if isinstance(v, Schedule) else thaw(v) for n, v in values.items()},
        }

    def __repr__(self) -> str:
        shown = {n: v for n, v in self.config().items() if n not in ("type", "lr")}
        inner = "".join(f", {n}={v!r}" for n, v in shown.items())
        return f"{type(self).__name__}(lr={self._lr!r}{inner})"

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state.

        Returns
        -------
        dict
            ``"config"`` (JSON-able), ``"steps"`` (int) and ``"arrays"``: copies of the arrays kept
            for each parameter, named slot and parameter, for example ``"m.0.weight"``.
        """
        arrays = {
            f"{slot}.{key}": array.copy()
            for key, kept in self._state.items()
            for slot, array in kept.items()
        }
        return {"config": self.config(), "steps": self.steps, "arrays": arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state_dict`: arguments (the learning rate too), steps and arrays.

        Raises
        ------
        ValueError
            If it is incomplete or another optimizer's; nothing is changed then.
        """
        name = f"{type(self).__name__}.load_state_dict"
        if missing := {"config", "steps", "arrays"} - set(state):
            raise ValueError(f"{name}: missing {', '.join(sorted(missing))}")
        other = from_config(state["config"])
        if type(other) is not type(self):
            raise ValueError(f"{name}: this is the state of {type(other).__name__}")
        other.steps = integer(name, "steps", state["steps"])
        for key, array in state["arrays"].items():
            slot, _, parameter = key.partition(".")
            if slot not in self._slots or not parameter:
                raise ValueError(f"{name}: unexpected {key}")
            other._state.setdefault(parameter, {})[slot] = array.copy()
        for parameter, kept in other._state.items():
            if missing := set(self._slots) - set(kept):
                raise ValueError(f"{name}: missing {sorted(missing)[0]}.{parameter}")
        vars(self).update(vars(other))


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """Make an optimizer from its ``config()``; its state is new.

    Raises
    ------
    ValueError
        If the type is not known or the arguments do not fit it.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if not isinstance(kind, str) or kind not in Optimizer._types:
        known = sorted(Optimizer._types)
        raise ValueError(f"optimizer: type must be one of {known}, got {kind!r}")
    if isinstance(arguments.get("lr"), dict):
        arguments["lr"] = schedule_from_config(arguments["lr"])
    try:
        return Optimizer._types[kind](**arguments)
    except TypeError as e:
        raise ValueError(f"optimizer: {kind}: {e}") from e


def _keys(parameters: list[Parameter]) -> list[str]:
    """Return a name for each parameter: its own where they differ, else with its place."""
    names = [p.name for p in parameters]
    if len(set(names)) == len(names):
        return names
    return [f"{i}:{name}" for i, name in enumerate(names)]


class SGD(Optimizer):
    """Gradient descent, with momentum where it is not 0.

    ``g += weight_decay * w; v = momentum * v + g; w -= lr * v``, or with ``nesterov``
    ``w -= lr * (g + momentum * v)``. As torch.optim.SGD.

    Parameters
    ----------
    lr : float or Schedule
    momentum : float
        In [0, 1).
    nesterov : bool
        Needs a momentum.
    weight_decay : float
    """

    def __init__(
        self,
        lr: float | Schedule,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = fraction("SGD", "momentum", momentum)
        self.nesterov = flag("SGD", "nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")

    @property
    def _slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _apply(
        self,
        params: list[Array],
        grads: list[Array],
        kept: list[dict[str, Array]],
        lr: float | Array,
        step: int | Array,
        device: Mapping[str, Any],
    ) -> None:
        ops.sgd_step(
            params,
            grads,
            [k["velocity"] for k in kept] if self.momentum else None,
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            **device,
        )


class Adam(Optimizer):
    """Adam: Kingma and Ba, 2015. As torch.optim.Adam, weight decay added to the gradient.

    ``m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;``
    ``w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)``

    Parameters
    ----------
    lr : float or Schedule
    betas : (float, float)
        Each in [0, 1).
    eps : float
    weight_decay : float
    """

    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        name = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{name}: betas must be two numbers, got {betas!r}")
        self.betas = fraction(name, "betas[0]", betas[0]), fraction(name, "betas[1]", betas[1])
        self.eps = rate(name, "eps", eps)

    @property
    def _slots(self) -> tuple[str, ...]:
        return "m", "v"

    def _apply(
        self,
        params: list[Array],
        grads: list[Array],
        kept: list[dict[str, Array]],
        lr: float | Array,
        step: int | Array,
        device: Mapping[str, Any],
    ) -> None:
        ops.adam_step(
            params,
            grads,
            [k["m"] for k in kept],
            [k["v"] for k in kept],
            step,
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self._decoupled,
            **device,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, ``w -= lr * weight_decay * w`` before the step.

    Loshchilov and Hutter, 2019. As torch.optim.AdamW, with its default ``weight_decay``.

    Parameters
    ----------
    lr : float or Schedule
    betas : (float, float)
        Each in [0, 1).
    eps : float
    weight_decay : float
    """

    _decoupled = True

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)
