from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact

SHAPES = [(1,), (4, 3), (5, 7, 3), (2, 3, 4, 5), (1001,), (300, 41)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random(ops, dtype, shape, random):
    y, target = random.normal(shape, dtype), random.normal(shape, dtype)
    loss = ops.mse_fwd(y, target)
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert_close(loss, reference.mse_fwd(y, target), length=y.size)
    dy = ops.mse_bwd(y, target)
    assert dy.dtype == dtype
    assert_close(dy, reference.mse_bwd(y, target))


@pytest.mark.parametrize("shape", [(1,), (2, 4), (64,), (8, 2, 16)], ids=str)
def test_exact(ops, dtype, shape, random):
    y, target = random.integers(shape, dtype), random.integers(shape, dtype)
    assert_exact(ops.mse_fwd(y, target), reference.mse_fwd(y, target), dtype)
    assert_exact(ops.mse_bwd(y, target), reference.mse_bwd(y, target), dtype)


def test_gradient_belongs_to_the_loss(ops, dtype, random):
    """A quadratic: loss(y + h v) - loss(y - h v) = 2 h <gradient, v> for any step h."""
    y, target, v = (random.integers((16, 32), dtype) for _ in range(3))
    difference = ops.mse_fwd(y + v, target) - ops.mse_fwd(y - v, target)
    assert difference == 2 * np.vdot(ops.mse_bwd(y, target), v)


def test_nan(ops, dtype):
    y, target = np.zeros(9, dtype), np.zeros(9, dtype)
    target[4] = np.nan
    assert np.isnan(ops.mse_fwd(y, target))
    np.testing.assert_array_equal(np.isnan(ops.mse_bwd(y, target)), np.arange(9) == 4)
