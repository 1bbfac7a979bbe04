"""The CPU as `Runtime`: steps that are recorded once, and then done without Python."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from stapes import _core
from stapes.device import Array, empty
from stapes.train.plan import SHAPES_KEPT, Plan
from stapes.train.runtime import HostRuntime, Program
from stapes.train.watch import Watch


def can_record(*parts: object) -> bool:
    """Tell whether layers, loss and optimizer are of Stapes.

    Those call nothing but operators and `Layer._run_array`, with arrays and numbers that stay the
    same from step to step; what others wrote, or put in place of a method, may do anything.
    """
    return all(
        type(part).__module__.partition(".")[0] == "stapes"
        and not any(callable(getattr(type(part), name, None)) for name in vars(part))
        for part in parts
    )


class CpuRuntime(HostRuntime):
    """The CPU: a program is recorded at its second call, and from then on replayed in C++.

    The first call makes the arrays; see `stapes.train.plan.Buffers`. A replay holds the GIL for no
    part of it, and looks up nothing.
    """

    late = 0
    direct = True

    def program(self, function: Program) -> Program:
        return _Recorded(function)


class Forward:
    """A plan's forward pass, recorded for each shape of inputs where that can be done.

    Parameters
    ----------
    plan : Plan
        Of a network on the CPU.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._known = plan, can_record(*plan.buffered)
        self._shapes: OrderedDict[tuple[Any, ...], _ForwardOf] = OrderedDict()
        self._watch: Watch | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy record anew."""
        return Forward, (self._plan,)

    def __call__(self, x: Array) -> Array:
        """Return the output: a buffer's content, to be copied."""
        if not self._known:
            with self._plan.buffers(x.shape):
                return self._plan.forward(x)
        if self._watch is not None and self._watch.changed():
            self._shapes.clear()
            self._watch = None
        key = (*x.shape, x.dtype)
        if key not in self._shapes:
            self._shapes[key] = _ForwardOf(self._plan, x)
            if len(self._shapes) > SHAPES_KEPT:
                self._shapes.popitem(last=False)
        self._shapes.move_to_end(key)
        output = self._shapes[key](x)
        if self._watch is None:
            self._watch = Watch(self._plan.layers)
        return output


class _ForwardOf:
    def __init__(self, plan: Plan, x: Array) -> None:
        self._plan, self._x = plan, empty(np, x.shape, x.dtype)
        self._output: Array = None
        self._program = _Recorded(self._run)

    def __call__(self, x: Array) -> Array:
        np.copyto(self._x, x)
        self._program()
        return self._output

    def _run(self) -> None:
        with self._plan.buffers(self._x.shape):
            self._output = self._plan.forward(self._x)


class _Recorded:
    def __init__(self, function: Program) -> None:
        self._function = function
        self._ran = False
        self._recorded: Any = None

    def __call__(self) -> None:
        if self._recorded is not None:
            _core.replay(self._recorded)
        elif self._ran:
            self._recorded = _core.record(self._function)
        else:
            self._function()
            self._ran = True
