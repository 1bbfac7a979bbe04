from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_adjoint, assert_close, assert_exact, finfo

# 8 lanes, a warp or a block of 256 for a row on CUDA; more rows than a grid has groups.
SHAPES = [(5,), (1, 1), (4, 10), (3, 2, 7, 33), (9, 1000), (0, 4), (257, 3)]
SHAPES += [(3, 32), (2, 1024), (2, 1025), (33, 1027), (1100, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random(ops, dtype, shape, random):
    x = 4 * random.normal(shape, dtype)
    y = ops.softmax_fwd(x)
    assert y.dtype == dtype
    assert_close(y, reference.softmax_fwd(x), length=shape[-1])
    sums = np.float64(y).sum(axis=-1).astype(dtype)
    assert_close(sums, np.ones(shape[:-1]), length=shape[-1])
    dy = random.normal(shape, dtype)
    dx = ops.softmax_bwd(dy, y)
    assert dx.dtype == dtype
    terms = np.abs(np.float64(dy) * np.float64(y)).max(initial=0)
    assert_close(dx, reference.softmax_bwd(dy, y), length=shape[-1], scale=terms)


@pytest.mark.parametrize("classes", [1, 2, 4, 64])
def test_exact(ops, dtype, classes):
    """Equal logits, a power of two of them: nothing is rounded."""
    y = ops.softmax_fwd(np.full((3, classes), 7.5, dtype))
    assert_exact(y, np.full((3, classes), 1 / classes), dtype)
    dy = np.tile(np.array([1, -1], dtype), (3, max(classes // 2, 1)))[:, :classes]
    want = reference.softmax_bwd(dy, y)
    assert_exact(ops.softmax_bwd(dy, y), want, dtype)


def test_large_and_infinite(ops, dtype):
    inf, huge = np.inf, finfo(dtype).max
    x = np.array([[huge, huge, -huge], [-inf, 0, 0], [-1e4, -1e4, -inf], [1e4, 0, -1e4]], dtype)
    want = [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0.5, 0], [1, 0, 0]]
    assert_exact(ops.softmax_fwd(x), want, dtype)


def test_nan_stays_in_its_row(ops, dtype, random):
    x = random.normal((5, 9), dtype)
    clean = ops.softmax_fwd(x)
    x[2, 4] = np.nan
    y = ops.softmax_fwd(x)
    assert np.isnan(y[2]).all()
    rows = [0, 1, 3, 4]
    assert_exact(y[rows], clean[rows], dtype)


def test_adjoint(ops, dtype, random):
    """The Jacobian is symmetric: <u, J v> = <J u, v>."""
    y = ops.softmax_fwd(random.normal((300, 40), dtype))
    u, v = random.normal(y.shape, dtype), random.normal(y.shape, dtype)
    assert_adjoint((u, ops.softmax_bwd(v, y)), (ops.softmax_bwd(u, y), v))


def test_in_place(ops, dtype, random):
    x, dy = random.normal((6, 11), dtype), random.normal((6, 11), dtype)
    want_y = ops.softmax_fwd(x)
    want_dx = ops.softmax_bwd(dy, want_y)
    assert ops.softmax_fwd(x, out=x) is x
    assert_exact(x, want_y, dtype)
    assert ops.softmax_bwd(dy, want_y, out=dy) is dy
    assert_exact(dy, want_dx, dtype)
