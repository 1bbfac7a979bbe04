"""The CPU as `Runtime`: steps that are recorded once, and then done without Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stapes import _core, nn
from stapes.losses import CrossEntropyLoss, MSELoss
from stapes.train import stages
from stapes.train.plan import Plan
from stapes.train.runtime import HostRuntime, Program

if TYPE_CHECKING:
    from stapes.optim import Optimizer

# What these do is done by operators and `Layer._run_array` alone, in arrays that stay the same.
_RECORDED: frozenset[type] = frozenset(
    {
        nn.AvgPool2d, nn.BatchNorm2d, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Dropout,
        nn.Flatten, nn.GlobalAvgPool2d, nn.Linear, nn.MaxPool2d, nn.ReLU, nn.Residual,
        nn.Sequential, nn.Softmax, nn.TimePool, nn.Upsample2d,
        stages.Rectified, stages.RectifiedInPlace, stages.RectifiedPooled,
    }
)  # fmt: skip


def can_record(plan: Plan, loss: Any, optimizer: Optimizer) -> bool:
    """Tell whether all of a step can be recorded: no layer or loss that somebody else wrote."""
    return (
        all(type(stage) in _RECORDED for stage in plan.buffered)
        and type(loss) in (CrossEntropyLoss, MSELoss)
        and type(optimizer).__module__ == "stapes.optim"
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
