from __future__ import annotations

import pytest

import reference
from numerics import assert_adjoint, assert_close, assert_exact

CASES = [
    ((2, 3, 4, 8), 2),
    ((2, 3, 4, 5), (3, 1)),
    ((1, 1, 7, 1), (1, 4)),
    ((2, 2, 3, 17), 1),
    ((2, 2, 2, 3), (2, 5)),
    ((0, 3, 4, 2), 2),
]


@pytest.mark.parametrize(("shape", "scale"), CASES, ids=str)
def test_exact(ops, dtype, shape, scale, random):
    x = random.integers(shape, dtype)
    y = ops.upsample2d_fwd(x, scale)
    assert_exact(y, reference.upsample2d_fwd(x, scale), dtype)
    dy = random.integers(y.shape, dtype)
    assert_exact(ops.upsample2d_bwd(dy, scale), reference.upsample2d_bwd(dy, scale), dtype)


def test_random_and_adjoint(ops, dtype, random):
    x, dy = random.normal((3, 20, 21, 9), dtype), random.normal((3, 60, 42, 9), dtype)
    y, dx = ops.upsample2d_fwd(x, (3, 2)), ops.upsample2d_bwd(dy, (3, 2))
    assert_close(dx, reference.upsample2d_bwd(dy, (3, 2)), length=6)
    assert_adjoint((dy, y), (dx, x))
