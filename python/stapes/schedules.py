"""Learning rates that change from step to step.

A schedule is given as an optimizer's ``lr``. Calling it with the number of steps already done
gives the rate of the next one, so it has no state of its own. The formulas, with t that number,
are those of PyTorch's schedulers of the same names, advanced once a step.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar

from stapes.ops._args import integer, number


class Schedule:
    """Base class: a subclass keeps its arguments in attributes of their names and is called."""

    _types: ClassVar[dict[str, type[Schedule]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Schedule._types[cls.__name__] = cls

    def __call__(self, t: int) -> float:
        """Return the learning rate of the step after ``t`` steps."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return type and arguments, JSON-able; `schedule_from_config` makes it again."""
        values = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {
            "type": type(self).__name__,
            **{n: v.config() if isinstance(v, Schedule) else v for n, v in values.items()},
        }

    def __repr__(self) -> str:
        names = inspect.signature(type(self)).parameters
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"

    def _rate(self, name: str, value: Any) -> float:
        return rate(type(self).__name__, name, value)

    def _steps(self, name: str, value: Any) -> int:
        n = integer(type(self).__name__, name, value)
        if n < 1:
            raise ValueError(f"{type(self).__name__}: {name} must be at least 1, got {n}")
        return n


def rate(owner: str, name: str, value: Any) -> float:
    """Return ``value`` as a finite float of at least 0."""
    x = number(owner, name, value)
    if not 0 <= x < math.inf:
        raise ValueError(f"{owner}: {name} must be finite and at least 0, got {x}")
    return x


def schedule_from_config(config: dict[str, Any]) -> Schedule:
    """Make a schedule from its ``config()``.

    Raises
    ------
    ValueError
        If the type is not known or the arguments do not fit it.
    """
    arguments = {
        k: schedule_from_config(v) if isinstance(v, dict) else v for k, v in config.items()
    }
    kind = arguments.pop("type", None)
    if not isinstance(kind, str) or kind not in Schedule._types:
        raise ValueError(f"schedule: type must be one of {sorted(Schedule._types)}, got {kind!r}")
    try:
        return Schedule._types[kind](**arguments)
    except TypeError as e:
        raise ValueError(f"schedule: {kind}: {e}") from e


class StepLR(Schedule):
    """``lr * gamma ** (t // step_size)``.

    Parameters
    ----------
    lr : float
        First learning rate.
    step_size : int
        Steps between two changes.
    gamma : float
    """

    def __init__(self, lr: float, step_size: int, gamma: float = 0.1) -> None:
        self.lr = self._rate("lr", lr)
        self.step_size = self._steps("step_size", step_size)
        self.gamma = self._rate("gamma", gamma)

    def __call__(self, t: int) -> float:
        return self.lr * self.gamma ** (t // self.step_size)


class CosineLR(Schedule):
    """``min_lr + (lr - min_lr) * (1 + cos(pi * t / total_steps)) / 2``, then ``min_lr``.

    PyTorch's CosineAnnealingLR with T_max = total_steps (which would rise again after it);
    Loshchilov and Hutter, SGDR, 2017.

    Parameters
    ----------
    lr : float
        First and highest learning rate.
    total_steps : int
    min_lr : float
        Last learning rate.
    """

    def __init__(self, lr: float, total_steps: int, min_lr: float = 0.0) -> None:
        self.lr = self._rate("lr", lr)
        self.total_steps = self._steps("total_steps", total_steps)
        self.min_lr = self._rate("min_lr", min_lr)

    def __call__(self, t: int) -> float:
        done = min(t / self.total_steps, 1.0)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * done)) / 2


class OneCycleLR(Schedule):
    """Up from ``lr / div_factor`` to ``lr``, then down to ``lr / div_factor / final_div_factor``.

    Both by half a cosine, ``b + (a - b) * (1 + cos(pi * u)) / 2`` from a to b, or a line. The top
    is reached at t = pct_start * total_steps - 1, the end at t = total_steps - 1, and kept.
    PyTorch's OneCycleLR without its cycling of the momentum; Smith and Topin, Super-Convergence,
    2018.

    Parameters
    ----------
    lr : float
        Highest learning rate.
    total_steps : int
    pct_start : float
        Part of the steps that goes up, in [0, 1].
    div_factor, final_div_factor : float
        Above 0.
    anneal : {"cos", "linear"}
    """

    def __init__(
        self,
        lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        anneal: str = "cos",
    ) -> None:
        self.lr = self._rate("lr", lr)
        self.total_steps = self._steps("total_steps", total_steps)
        self.pct_start = self._rate("pct_start", pct_start)
        self.div_factor = self._rate("div_factor", div_factor)
        self.final_div_factor = self._rate("final_div_factor", final_div_factor)
        self.anneal = anneal
        if self.pct_start > 1 or not self.div_factor or not self.final_div_factor:
            raise ValueError(
                "OneCycleLR: pct_start must be in [0, 1] and both factors above 0, got"
                f" pct_start={pct_start}, div_factor={div_factor},"
                f" final_div_factor={final_div_factor}"
            )
        if anneal not in ("cos", "linear"):
            raise ValueError(f'OneCycleLR: anneal must be "cos" or "linear", got {anneal!r}')

    def __call__(self, t: int) -> float:
        first = self.lr / self.div_factor
        top, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if t >= end:
            return first / self.final_div_factor
        if t <= top:
            return self._between(first, self.lr, t / top if top > 0 else 1.0)
        return self._between(self.lr, first / self.final_div_factor, (t - top) / (end - top))

    def _between(self, a: float, b: float, u: float) -> float:
        if self.anneal == "linear":
            return a + (b - a) * u
        return b + (a - b) * (1 + math.cos(math.pi * u)) / 2


class WarmupLR(Schedule):
    """``lr * (start_factor + (1 - start_factor) * min(t / warmup_steps, 1))``, then ``lr``.

    PyTorch's LinearLR with total_iters = warmup_steps. Where ``lr`` is a schedule, it begins when
    the warm-up ends, as in PyTorch's SequentialLR: before that the formula has ``lr(0)``, after it
    the rate is ``lr(t - warmup_steps)``.

    Parameters
    ----------
    lr : float or Schedule
    warmup_steps : int
    start_factor : float
        In [0, 1].
    """

    def __init__(
        self, lr: float | Schedule, warmup_steps: int, start_factor: float = 1 / 3
    ) -> None:
        self.lr = lr if isinstance(lr, Schedule) else self._rate("lr", lr)
        self.warmup_steps = self._steps("warmup_steps", warmup_steps)
        self.start_factor = self._rate("start_factor", start_factor)
        if self.start_factor > 1:
            raise ValueError(f"WarmupLR: start_factor must be in [0, 1], got {start_factor}")

    def __call__(self, t: int) -> float:
        if t >= self.warmup_steps:
            return self.lr(t - self.warmup_steps) if isinstance(self.lr, Schedule) else self.lr
        full = self.lr(0) if isinstance(self.lr, Schedule) else self.lr
        return full * (self.start_factor + (1 - self.start_factor) * t / self.warmup_steps)
