from __future__ import annotations

import numpy as np
import pytest

from numerics import assert_exact, finfo

SHAPES = [(), (1,), (7,), (2, 3, 5, 7), (1024,), (0, 4), (40_003,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random(ops, dtype, shape, random):
    for other in ops.dtypes:
        x = random.normal(shape, other)
        assert_exact(ops.cast(x, dtype), x, dtype)


def test_special_values(ops, dtype):
    """Halves to even, subnormal numbers, what is too large, and what is no number."""
    info = finfo(dtype)
    eps, tiny, most = (float(v) for v in (info.eps, info.smallest_subnormal, info.max))
    values = [1 + eps / 2, 1 + 1.5 * eps, 0.75 * tiny, 0.5 * tiny, 1.5 * tiny, most * (1 + eps)]
    values += [np.nan, np.inf, 0.0, 65519.0, 65520.0, 1e-8, 3.3895314e38]
    for other in ops.dtypes:
        with np.errstate(over="ignore"):
            x = np.array([*values, *(-v for v in values)]).astype(other)
            y, want = ops.cast(x, dtype), x.astype(dtype)
        assert_exact(y, want, dtype)
        number = ~np.isnan(want)  # hardware does not keep the sign of a NaN
        np.testing.assert_array_equal(np.signbit(y)[number], np.signbit(want)[number])


def test_out(ops, dtype, random):
    x = random.normal((3, 5), np.float32)
    with pytest.raises(TypeError, match="cast: out must be"):
        ops.cast(x, dtype, out=np.empty((3, 5), np.int32))
    with pytest.raises(ValueError, match=r"cast.*\(5, 3\)"):
        ops.cast(x, dtype, out=np.empty((5, 3), dtype))


def test_dtypes_in_which_the_device_does_not_compute(ops):
    wrong = "float16" if ops.kernels == "cpu" else "float64"
    with pytest.raises(TypeError, match=f"cast.*{wrong}"):
        ops.cast(np.ones(3, np.float32), wrong)
    with pytest.raises(TypeError, match=f"cast.*{wrong}"):
        ops.cast(np.ones(3, wrong), np.float32)
