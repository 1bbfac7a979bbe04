from __future__ import annotations

import numpy as np
import pytest

import reference
from devices import surrounded
from numerics import assert_close, assert_exact, wide

SHAPES = [(1,), (4, 3), (5, 7, 3), (2, 3, 4, 5), (1001,), (300, 41)]
SHAPES += [(1024,), (1025,), (2049,)]  # edges of CUDA's blocks


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random(ops, dtype, shape, random):
    y, target = random.normal(shape, dtype), random.normal(shape, dtype)
    loss = ops.mse_fwd(y, target)
    assert loss.shape == ()
    assert loss.dtype == wide(dtype)
    assert_close(loss, reference.mse_fwd(y, target), length=y.size)
    dy = ops.mse_bwd(y, target)
    assert dy.dtype == dtype
    assert_close(dy, reference.mse_bwd(y, target))


@pytest.mark.parametrize("shape", [(1,), (2, 4), (64,), (8, 2, 16)], ids=str)
def test_exact(ops, dtype, shape, random):
    y, target = random.integers(shape, dtype), random.integers(shape, dtype)
    assert_exact(ops.mse_fwd(y, target), reference.mse_fwd(y, target), wide(dtype))
    assert_exact(ops.mse_bwd(y, target), reference.mse_bwd(y, target), dtype)


def test_gradient_belongs_to_the_loss(ops, dtype, random):
    """A quadratic: loss(y + h v) - loss(y - h v) = 2 h <gradient, v> for any step h."""
    y, target, v = (random.integers((16, 32), dtype) for _ in range(3))
    difference = ops.mse_fwd(y + v, target) - ops.mse_fwd(y - v, target)
    assert difference == 2 * np.vdot(np.float64(ops.mse_bwd(y, target)), np.float64(v))


def test_nan(ops, dtype):
    y, target = np.zeros(9, dtype), np.zeros(9, dtype)
    target[4] = np.nan
    assert np.isnan(ops.mse_fwd(y, target))
    np.testing.assert_array_equal(np.isnan(ops.mse_bwd(y, target)), np.arange(9) == 4)


def test_more_elements_than_a_grid_takes_at_once(ops, dtype, random):
    """On CUDA 512 blocks of 256 units of 16 bytes."""
    if ops.name == "simt" and dtype != np.float32:
        pytest.skip("twice as long, and the same loop")
    y, target = random.integers(2**19 + 2**17 + 3, dtype), np.zeros(2**19 + 2**17 + 3, dtype)
    assert_exact(ops.mse_fwd(y, target), reference.mse_fwd(y, target), wide(dtype))


def test_no_elements(ops, dtype):
    y = np.empty((0, 3), dtype)
    assert_exact(ops.mse_fwd(y, y.copy()), 0.0, wide(dtype))
    assert_exact(ops.mse_bwd(y, y.copy()), y, dtype)


@pytest.mark.parametrize("scale", [0.0, 8.0, 1024], ids=str)
def test_scale(ops, dtype, scale, random):
    """By value or as an array of one element, which the kernel reads."""
    y, target = random.integers((4, 8), dtype), random.integers((4, 8), dtype)
    want = scale * reference.mse_bwd(y, target)
    for given in (scale, np.array([scale], np.float32), np.array(scale, np.float64)):
        assert_exact(ops.mse_bwd(y, target, scale=given), want, dtype)


def test_scale_before_rounding(ops, dtype):
    """What would become 0 in float16 does not where it is scaled in the same call."""
    y, target = np.zeros(4096, dtype), np.zeros(4096, dtype)
    y[5] = 2.0**-14
    dy = ops.mse_bwd(y, target, scale=2.0**16)
    assert dy[5] == 2.0**-9


@pytest.mark.parametrize("odd", range(2))
def test_one_array_at_an_odd_address(ops, dtype, odd, random):
    arrays = [random.integers((40, 3), dtype), random.integers((40, 3), dtype)]
    arrays[odd] = surrounded(arrays[odd])[0]
    assert_close(ops.mse_fwd(*arrays), reference.mse_fwd(*arrays), length=120)
    assert_close(ops.mse_bwd(*arrays), reference.mse_bwd(*arrays))
