from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from devices import surrounded
from numerics import Random, assert_close, assert_exact

SHAPES = [(), (1,), (3,), (4,), (5,), (2, 3, 5, 7), (1001,), (0,), (64, 33)]
SHAPES += [(1024,), (70_003,)]  # an edge of CUDA's blocks; more than one turn of a grid
SEEDS = [0, 1, 2**32, 2**63 - 1, 2**64 - 1]
OFFSETS = [0, 1, 12345, 2**32 - 2, 2**40, 2**64 - 3]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.75, 0.999])
def test_mask_and_values(ops, dtype, shape, p, random):
    x = random.normal(shape, dtype)
    kept = reference.dropout.kept(shape, p, seed=7, offset=3)
    for function in (ops.dropout_fwd, ops.dropout_bwd):
        y = function(x, p, seed=7, offset=3)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y != 0, kept)
        assert_close(y, np.where(kept, np.float64(x) / (1 - p), 0))


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("seed", SEEDS)
def test_exact(ops, dtype, seed, offset, random):
    x = random.integers((3, 5, 7), dtype)
    want = reference.dropout_fwd(x, 0.5, seed=seed, offset=offset)
    assert_exact(ops.dropout_fwd(x, 0.5, seed=seed, offset=offset), want, dtype)
    assert_exact(ops.dropout_bwd(x, 0.5, seed=seed, offset=offset), want, dtype)


def test_p_is_not_rounded_to_float32(ops, dtype):
    """Here u is 0.7 rounded to 24 bits: below 0.7, but not below float32(0.7)."""
    u = reference.dropout.uniforms(4, seed=0, offset=8955381)[1]
    assert u < 0.7 <= u + 2.0**-24
    assert u >= np.float32(0.7)
    y = ops.dropout_fwd(np.ones(4, dtype), 0.7, seed=0, offset=8955381)
    assert y[1] == 0


def test_nothing_is_dropped_at_p_0(ops, dtype, random):
    x = random.normal((123,), dtype)
    assert_exact(ops.dropout_fwd(x, 0.0, seed=1, offset=0), x, dtype)


def test_dropped_is_zero_and_not_zero_times_x(ops, dtype):
    x = np.full(4000, np.nan, dtype)
    y = ops.dropout_fwd(x, 0.5, seed=1, offset=0)
    np.testing.assert_array_equal(np.isnan(y), reference.dropout.kept((4000,), 0.5, 1, 0))
    assert (y[~np.isnan(y)] == 0).all()


def test_calls_follow_on_one_another(ops, dtype):
    """A call uses ceil(size / 4) counters: the next begins there, and together they are one."""
    x = np.ones(64, dtype)
    whole = ops.dropout_fwd(x, 0.5, seed=9, offset=100)
    parts = [
        ops.dropout_fwd(x[:40], 0.5, seed=9, offset=100),
        ops.dropout_fwd(x[40:], 0.5, seed=9, offset=110),
    ]
    assert_exact(np.concatenate(parts), whole, dtype)


def test_offset_may_be_an_array_of_one_element(ops, dtype):
    x = np.ones(50, dtype)
    want = ops.dropout_fwd(x, 0.5, seed=9, offset=5)
    for offset in (np.array([5]), np.array(5), np.int64(5)):
        assert_exact(ops.dropout_fwd(x, 0.5, seed=9, offset=offset), want, dtype)
        assert_exact(ops.dropout_bwd(x, 0.5, seed=9, offset=offset), want, dtype)


def test_in_place(ops, dtype, random):
    x, dy = random.normal((6, 11), dtype), random.normal((6, 11), dtype)
    o = {"seed": 3, "offset": 1}
    want_y, want_dx = ops.dropout_fwd(x, 0.3, **o), ops.dropout_bwd(dy, 0.3, **o)
    assert ops.dropout_fwd(x, 0.3, **o, out=x) is x
    assert_exact(x, want_y, dtype)
    assert ops.dropout_bwd(dy, 0.3, **o, out=dy) is dy
    assert_exact(dy, want_dx, dtype)


@pytest.mark.parametrize("odd", range(2))
def test_one_array_at_an_odd_address(ops, dtype, odd, random):
    arrays = [random.integers((40, 3), dtype), np.empty((40, 3), dtype)]
    arrays[odd] = surrounded(arrays[odd])[0]
    y = ops.dropout_fwd(arrays[0], 0.5, seed=5, offset=1, out=arrays[1])
    assert_exact(y, reference.dropout_fwd(arrays[0], 0.5, seed=5, offset=1), dtype)


@given(
    size=st.integers(0, 200),
    p=st.floats(0, 0.99),
    seed=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**48),
)
def test_drawn(ops, dtype, size, p, seed, offset):
    x = np.abs(Random(size).normal(size, dtype)) + dtype(1)
    y = ops.dropout_fwd(x, p, seed=seed, offset=offset)
    assert_close(y, reference.dropout_fwd(x, p, seed=seed, offset=offset))
    np.testing.assert_array_equal(y != 0, reference.dropout.kept((size,), p, seed, offset))
