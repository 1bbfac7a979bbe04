from __future__ import annotations

import numpy as np
import pytest

from numerics import assert_exact, finfo

# One block's elements on CUDA (8192), and more.
SHAPES = [(3, 4), (0,), (1,), (8192,), (8195,)]


def flag(value):
    return np.array(value, np.int32)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan], ids=str)
def test_find_inf(ops, dtype, wrong, random):
    """Wherever it is; and the largest numbers are none."""
    grads = [random.normal(shape, dtype) for shape in SHAPES]
    grads[0][0, 0], grads[0][0, 1] = finfo(dtype).max, finfo(dtype).smallest_subnormal
    found = ops.find_inf(grads)
    assert_exact(found, 0, np.int32)
    for i, at in [(0, 11), (2, 0), (3, 8191), (4, 0), (4, 8191), (4, 8194)]:
        before = grads[i].flat[at]
        grads[i].flat[at] = wrong
        assert ops.find_inf(grads) != 0, f"element {at} of gradient {i}"
        grads[i].flat[at] = before
    assert_exact(ops.find_inf(grads), 0, np.int32)


def test_find_inf_in_many_tensors(ops, dtype):
    """More than fit into the arguments of one launch on CUDA."""
    grads = [np.ones(i % 5, dtype) for i in range(250)]
    for i in (1, 249):
        assert ops.find_inf(grads) == 0
        grads[i][-1] = np.nan
        assert ops.find_inf(grads) != 0
        grads[i][-1] = 1


def test_find_inf_overwrites(ops):
    out = flag(77)
    assert ops.find_inf([np.ones(3, np.float32)], out=out) is out
    assert out == 0
    assert ops.find_inf([], out=flag(77)) == 0
    assert_exact(ops.find_inf([]), 0, np.int32)


def test_find_inf_errors(ops, dtype):
    x = np.ones(3, dtype)
    with pytest.raises(TypeError, match=r"find_inf: grads\[1\]"):
        ops.find_inf([x, "audio"])
    with pytest.raises(TypeError, match="find_inf: grads must be a list"):
        ops.find_inf(x)
    with pytest.raises(TypeError, match="find_inf: found_inf must be int32"):
        ops.find_inf([x], out=np.zeros((), np.int64))
    with pytest.raises(TypeError, match="find_inf"):
        ops.find_inf([x, np.ones(3, np.int32)])


def test_update_scale(ops):
    scale, good, step = np.array([8], np.float32), flag(0), np.array(1)
    followed = []
    for found in [0, 0, 0, 1, 0, 0, 4, 1, 0]:
        ops.update_scale(scale, good, flag(found), step=step, growth_interval=3)
        followed.append((scale[0], int(good), int(step)))
    assert followed == [
        (8, 1, 2), (8, 2, 3), (16, 0, 4), (8, 0, 4), (8, 1, 5), (8, 2, 6), (4, 0, 6), (2, 0, 6),
        (2, 1, 7),
    ]  # fmt: skip


def test_update_scale_without_a_step_and_with_other_factors(ops):
    scale, good = np.array(8, np.float32), flag(1)
    ops.update_scale(scale, good, flag(0), growth_factor=4.0, growth_interval=2)
    assert (scale, good) == (32, 0)
    ops.update_scale(scale, good, flag(1), backoff_factor=0.25)
    assert (scale, good) == (8, 0)


def test_the_scale_stays_finite(ops):
    scale, good = np.array(2.0**127, np.float32), flag(0)
    ops.update_scale(scale, good, flag(0), growth_interval=1)
    assert (scale, good) == (2.0**127, 0)


def test_update_scale_errors(ops):
    scale, good, found = np.array(8, np.float32), flag(0), flag(0)
    for options, error in [
        ({"growth_factor": 0.5}, ValueError),
        ({"backoff_factor": 0.0}, ValueError),
        ({"backoff_factor": np.nan}, ValueError),
        ({"growth_interval": 0}, ValueError),
        ({"step": np.array(1, np.int32)}, TypeError),
        ({"step": np.array([1, 2])}, ValueError),
    ]:
        with pytest.raises(error, match=f"update_scale: {next(iter(options))}"):
            ops.update_scale(scale, good, found, **options)
    with pytest.raises(TypeError, match="update_scale: scale must be float32"):
        ops.update_scale(np.array(8.0), good, found)
    with pytest.raises(ValueError, match="update_scale: good_steps must not overlap found_inf"):
        ops.update_scale(scale, good, good)
    assert (scale, good) == (8, 0)
