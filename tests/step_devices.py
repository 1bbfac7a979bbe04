"""Where the training step of a device is tested.

- "cpu": the CPU, its steps recorded and replayed in C++.
- "host": NumPy arrays and the CPU's kernels, the step called anew each time.
- "replay": the same, but as a graph does it: recorded once, then only replayed.
- "simt": CUDA's kernels on the emulator, replayed too.
- "cuda": a GPU.
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np
import pytest

import simt_module
import stapes.nn.pool
import stapes.nn.sequential
import stapes.train.plan
import stapes.train.scaling
from stapes.device import cuda_reason
from stapes.train.cpu import CpuRuntime
from stapes.train.runtime import HostRuntime

# Where the step calls the array library itself, beside the operators.
_ARRAY_USERS = (
    stapes.nn.pool,
    stapes.nn.sequential,
    stapes.train.plan,
    stapes.train.scaling,
)


class _Recorder:
    """Stands for a module: its functions work as ever, and their calls are noted."""

    def __init__(self, module, calls):
        self._module, self._calls = module, calls

    def __getattr__(self, name):
        function = getattr(self._module, name)

        def call(*args, **kwargs):
            self._calls.append((function, args, kwargs))
            return function(*args, **kwargs)

        return call if callable(function) else function


@contextlib.contextmanager
def _recording(calls):
    """Note every call of an operator, and of the array library by `_ARRAY_USERS`."""
    users = [m for name, m in sys.modules.items() if name.startswith("stapes.ops.")]
    users = [m for m in users if hasattr(m, "_core")]
    cores, modules = [m._core for m in users], [m.array_module for m in _ARRAY_USERS]
    for user, core in zip(users, cores, strict=True):
        user._core = _Recorder(core, calls)
    for user in _ARRAY_USERS:
        user.array_module = lambda x: _Recorder(np, calls)
    try:
        yield
    finally:
        for user, core in zip(users, cores, strict=True):
            user._core = core
        for user, module in zip(_ARRAY_USERS, modules, strict=True):
            user.array_module = module


class Replaying(HostRuntime):
    """As a CUDA graph: a program runs once, is recorded at its second call, and then replayed.

    A replay does the recorded calls with the recorded numbers and the same arrays, and nothing
    else; what a step computes beside them, or in other arrays, is lost.
    """

    late = 2

    def __init__(self):
        self.replays = 0

    def program(self, function):
        calls, ran = [], []

        def launch():
            if calls:
                self.replays += 1
                for call, args, kwargs in calls:
                    call(*args, **kwargs)
            elif ran:
                with _recording(calls):
                    function()
            else:
                function()
                ran.append(True)

        return launch


class Emulated(Replaying):
    """The emulator's device, on which there are all precisions."""

    precisions = ("fp32", "fp32_split", "tf32", "bf16", "fp16")


class Host:
    name = "host"
    precisions = ("fp32", "fp64")
    exact = True  # the bits are the CPU's

    def active(self):
        return contextlib.nullcontext()

    def runtime(self):
        return HostRuntime()


class Cpu(Host):
    """As `compile(device="cpu")` does it where it can."""

    name = "cpu"

    def runtime(self):
        return CpuRuntime()


class Replay(Host):
    name = "replay"

    def runtime(self):
        return Replaying()


class Simt(Host):
    name = "simt"
    precisions = Emulated.precisions
    exact = False

    def active(self):
        return simt_module.in_place_of_core()

    def runtime(self):
        return Emulated()


class Cuda(Simt):
    name = "cuda"

    def active(self):
        return contextlib.nullcontext()

    def runtime(self):
        from stapes.train import CudaRuntime

        return CudaRuntime()


_KINDS = {kind.name: kind for kind in (Host, Cpu, Replay, Simt, Cuda)}


def _why_not(name):
    asked_for = os.environ.get("STAPES_TEST_DEVICES", "cpu").split(",")
    if name == "cuda":
        reason = cuda_reason()
        return f"no CUDA: {reason}" if reason else None
    if name == "simt" and name not in asked_for:
        return "the emulator was not asked for: STAPES_TEST_DEVICES=cpu,simt"
    return None


def on(*names):
    """Parametrise a test with the argument ``device``; those that are missing are skipped."""
    params = []
    for name in names:
        reason = _why_not(name)
        marks = [pytest.mark.skip(reason=reason)] if reason else []
        params.append(pytest.param(_KINDS[name](), id=name, marks=marks))
    return pytest.mark.parametrize("device", params, indirect=True)


EVERYWHERE = ("cpu", "host", "replay", "simt", "cuda")
KERNELS_OF_CUDA = ("simt", "cuda")
