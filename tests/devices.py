"""Where operators are tested: each device takes NumPy arrays and answers with NumPy arrays.

- "cpu": the CPU's kernels.
- "simt": CUDA's kernels on the emulator of csrc/simt, which checks every access to memory.
- "cuda": CUDA's kernels on a GPU, where there is one.
- "copied": the CPU's kernels on copies of the arrays: a rehearsal of "cuda" without a GPU.
"""

from __future__ import annotations

import os

import numpy as np

import simt_module
import stapes.ops
from numerics import bfloat16

# Arguments, by position, that an operator updates in place.
UPDATED = {
    "batch_norm2d_fwd": (3, 4),
    "batch_norm2d_relu_conv2d_fwd": (3, 4),
    "batch_norm2d_relu_global_avg_pool2d_fwd": (3, 4),
    "batch_norm2d_relu_max_pool2d_fwd": (3, 4),
    "conv2d_batch_norm2d_relu_max_pool2d_fwd": (5, 6),
    "sgd_step": (0, 2),
    "adam_step": (0, 2, 3),
}

# Not one array, or a tuple of arrays, that can be poisoned: their own tests do it.
NOT_WATCHED = {"cross_entropy_fwd", "cross_entropy_bwd", "sgd_step", "adam_step", "update_scale"}

MARGIN = 5  # elements: odd, so that arrays inside start where no vector would


def updates(op, place):
    """Tell whether an operator may change the array at this place among its arguments."""
    if op == "batch_norm2d_relu_conv2d_chain_fwd":
        return place[0] == 1 and place[2] in (2, 3)  # the running values of a block
    return place[0] in UPDATED.get(op, ())


def each(f, value):
    """``value`` with ``f`` of all that is in it, in lists and tuples too."""
    if isinstance(value, list | tuple):
        inside = [each(f, v) for v in value]
        return value._make(inside) if hasattr(value, "_make") else type(value)(inside)
    return f(value)


def places(value, at=()):
    """(place, array) of all arrays in ``value``: the indices that lead there, from outside in."""
    if isinstance(value, list | tuple):
        for i, v in enumerate(value):
            yield from places(v, (*at, i))
    elif isinstance(value, np.ndarray):
        yield at, value


def copied(a):
    return a.copy() if isinstance(a, np.ndarray) else a


def poisoned(shape, dtype):
    """An array full of what no operator may leave behind, and the buffer around it."""
    dtype, size = np.dtype(dtype), int(np.prod(shape))
    buffer = np.full(size + 2 * MARGIN, 0x5A if dtype.kind in "iu" else np.nan, dtype)
    return buffer[MARGIN : MARGIN + size].reshape(shape), buffer


def surrounded(x):
    """A copy of ``x`` between poisoned neighbours, and the buffer that holds them all."""
    copy, buffer = poisoned(x.shape, x.dtype)
    copy[...] = x
    return copy, buffer


def assert_neighbours_untouched(op, buffer):
    for margin in (buffer[:MARGIN], buffer[-MARGIN:]):
        clean = poisoned((), buffer.dtype)[1][:MARGIN]
        assert margin.tobytes() == clean.tobytes(), f"{op} wrote outside of an array"


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


class Cpu:
    """stapes.ops on NumPy arrays: ``ops.relu_fwd(x)`` is stapes.ops.relu_fwd(x), watched.

    The call is repeated with poisoned ``out=`` and with all arrays between poisoned neighbours:
    ``out`` must come back itself with the same bits, and nothing else may have changed.
    """

    name = "cpu"
    kernels = "cpu"  # whose they are: "cpu" or "cuda"
    dtypes = (np.float32, np.float64)
    fast = True  # fast enough for big shapes

    def function(self, op):
        return getattr(stapes.ops, op)

    def __getattr__(self, op):
        function = self.function(op)

        def call(*args, **kwargs):
            before = each(copied, args)
            result = self._plain(op, function, args, kwargs)
            if op not in NOT_WATCHED and "out" not in kwargs:
                self._watched(op, function, before, args, kwargs, result)
            return result

        return call

    def _plain(self, op, function, args, kwargs):
        return function(*args, **kwargs)

    def _watched(self, op, function, args, after, kwargs, expected):
        """Call again with ``args``; ``after`` is what they were after the first call."""
        buffers = []

        def apart(how):
            def one(a):
                if not isinstance(a, np.ndarray):
                    return a
                a, buffer = how(a)
                buffers.append(buffer)
                return a

            return one

        inputs = each(apart(surrounded), args)
        out = each(apart(lambda y: poisoned(y.shape, y.dtype)), expected)

        result = function(*inputs, **kwargs, out=out)

        for (at, back), given, y in zip(places(result), places(out), places(expected), strict=True):
            assert at == given[0], f"{op} must return what has the form of out"
            assert back is given[1], f"{op} must return what was given as out"
            assert same_bits(back, y[1]), f"{op} differs with out="
        all_three = zip(places(inputs), places(after), places(args), strict=True)
        for (at, given), (_, now), (_, was) in all_three:
            assert same_bits(given, now), f"{op} differs in what it does to argument {at}"
            assert same_bits(now, was) or updates(op, at), f"{op} changed argument {at}"
        for buffer in buffers:
            assert_neighbours_untouched(op, buffer)


class Simt(Cpu):
    """stapes.ops over the emulator's module: NumPy arrays count as arrays of a CUDA device."""

    name = "simt"
    kernels = "cuda"
    dtypes = tuple(t for t in (np.float32, np.float16, bfloat16) if t is not None)
    fast = False

    def function(self, op):
        plain = super().function(op)

        def on_emulator(*args, **kwargs):
            with simt_module.in_place_of_core():
                return plain(*args, **kwargs)

        return on_emulator


class Copied(Cpu):
    """Where arrays must be moved to: NumPy's here, CuPy's in `Cuda`.

    What a call updates, and what is given as ``out``, is copied back and returned as it was given.
    """

    name = "copied"

    def put(self, x):
        return np.array(x, order="K")

    def get(self, x):
        return np.array(x)

    def _plain(self, op, function, args, kwargs):
        there = {}  # by id: one array stays one array, as where out is an input
        here = {}

        def moved(v):
            if not isinstance(v, np.ndarray):
                return v
            if id(v) not in there:
                there[id(v)] = self.put(v)
                here[id(there[id(v)])] = v
            return there[id(v)]

        def back(y):
            if id(y) in here:
                return here[id(y)]
            return y if y is None else self.get(y)

        kwargs = {name: each(moved, v) for name, v in kwargs.items()}
        result = function(*each(moved, args), **kwargs)
        for v in here.values():  # whatever it changed
            now = self.get(there[id(v)])
            if v.flags.writeable and not same_bits(v, now):
                v[...] = now
        return each(back, result)

    def _watched(self, *call):
        """Nothing: what lies around an array on a GPU is compute-sanitizer's to watch."""


class Cuda(Copied):
    """stapes.ops on CuPy arrays."""

    name = "cuda"
    kernels = "cuda"
    dtypes = Simt.dtypes
    fast = True

    def put(self, x):
        import cupy

        return cupy.asarray(x)

    def get(self, x):
        return x.get()


_KINDS = {kind.name: kind for kind in (Cpu, Simt, Cuda, Copied)}
DEVICES = [_KINDS[name] for name in os.environ.get("STAPES_TEST_DEVICES", "cpu,simt").split(",")]
