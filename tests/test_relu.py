from __future__ import annotations

import numpy as np
import pytest

import reference
from devices import surrounded
from numerics import assert_adjoint, assert_exact, finfo

SHAPES = [(), (1,), (7,), (33,), (2, 3, 5, 7), (1000,), (0,), (0, 4, 4, 3), (3, 0)]
SHAPES += [(1024,), (2049,), (70_001,)]  # edges of CUDA's blocks; more than one turn of a grid


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact(ops, dtype, shape, random):
    x, dy = random.integers(shape, dtype), random.integers(shape, dtype)
    y = ops.relu_fwd(x)
    assert_exact(y, reference.relu_fwd(x), dtype)
    assert_exact(ops.relu_bwd(dy, y), reference.relu_bwd(dy, y), dtype)


def test_special_values(ops, dtype):
    smallest = finfo(dtype).smallest_subnormal
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, smallest, -smallest] * 5, dtype)
    y = ops.relu_fwd(x)
    assert_exact(y, np.array([np.nan, np.inf, 0, 0, 0, smallest, 0] * 5, dtype), dtype)


def test_gradient_stops_at_zero(ops, dtype):
    y = np.array([0.0, 1.0, 0.0, 2.0], dtype)
    dy = np.array([np.inf, -1.0, 5.0, 7.0], dtype)
    assert_exact(ops.relu_bwd(dy, y), [0, -1, 0, 7], dtype)


def test_adjoint(ops, dtype, random):
    x, v = random.normal((3, 40, 41, 5), dtype), random.normal((3, 40, 41, 5), dtype)
    y = ops.relu_fwd(x)
    assert_adjoint((v, np.where(x > 0, x, 0)), (ops.relu_bwd(v, y), x))


def test_in_place(ops, dtype, random):
    x, dy = random.normal((5, 13), dtype), random.normal((5, 13), dtype)
    want_y = ops.relu_fwd(x)
    want_dx = ops.relu_bwd(dy, want_y)
    assert ops.relu_fwd(x, out=x) is x
    assert_exact(x, want_y, dtype)
    assert ops.relu_bwd(dy, want_y, out=dy) is dy
    assert_exact(dy, want_dx, dtype)


@pytest.mark.parametrize("odd", range(3))
def test_one_array_at_an_odd_address(ops, dtype, odd, random):
    dy, y = random.integers((40, 3), dtype), random.integers((40, 3), dtype)
    arrays = [dy, y, np.empty_like(dy)]
    arrays[odd] = surrounded(arrays[odd])[0]
    dx = ops.relu_bwd(*arrays[:2], out=arrays[2])
    assert_exact(dx, reference.relu_bwd(dy, y), dtype)
