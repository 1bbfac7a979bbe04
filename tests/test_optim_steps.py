from __future__ import annotations

import numpy as np
import pytest

import reference
from numerics import assert_close, assert_exact

SHAPES = [(3, 4), (1,), (17,), (2, 3, 3, 5), (0,), (1000,)]

SGD = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"weight_decay": 0.1},
    "everything": {"momentum": 0.5, "nesterov": True, "weight_decay": 0.01},
}
ADAM = {
    "adam": {},
    "adam_decay": {"weight_decay": 0.1},
    "adamw": {"weight_decay": 0.1, "decoupled": True},
}
BETAS = {"betas": (0.9, 0.999), "eps": 1e-8}


def draw_all(draw, dtype):
    return [draw(shape, dtype) for shape in SHAPES]


def zeros(dtype):
    return [np.zeros(shape, dtype) for shape in SHAPES]


def follow(steps, dtype, random, count, state_count, lr=0.01):
    """Run both for a while: steps(module, params, grads, state, step)."""
    params = draw_all(random.normal, dtype)
    state = [zeros(dtype) for _ in range(state_count)]
    want_params = [p.astype(np.float64) for p in params]
    want_state = [zeros(np.float64) for _ in range(state_count)]
    for step in range(1, count + 1):
        grads = draw_all(random.normal, dtype)
        steps(None, params, grads, state, step)
        steps(reference, want_params, grads, want_state, step)
    for got, want in zip([params, *state], [want_params, *want_state], strict=True):
        for a, b in zip(got, want, strict=True):
            assert a.dtype == dtype
            assert_close(a, b, length=count, scale=np.abs(b).max(initial=0) + lr)


@pytest.mark.parametrize("name", SGD)
def test_sgd(ops, dtype, name, random):
    def steps(module, params, grads, state, step):
        velocity = state[0] if "momentum" in SGD[name] else zeros(params[0].dtype)
        (module or ops).sgd_step(params, grads, velocity, lr=0.01, **SGD[name])

    follow(steps, dtype, random, 5, 1)


@pytest.mark.parametrize("name", ADAM)
def test_adam(ops, dtype, name, random):
    def steps(module, params, grads, state, step):
        (module or ops).adam_step(params, grads, *state, step, lr=0.01, **BETAS, **ADAM[name])

    follow(steps, dtype, random, 5, 2)


def test_adam_late(ops, dtype, random):
    """Far into training the bias corrections are 1, and must not have become anything else."""
    params, grads = draw_all(random.normal, dtype), draw_all(random.normal, dtype)
    state = draw_all(random.normal, dtype), [g**2 for g in draw_all(random.normal, dtype)]
    want = [[a.astype(np.float64) for a in arrays] for arrays in (params, *state)]
    ops.adam_step(params, grads, *state, 10**6, lr=0.1, **BETAS)
    reference.adam_step(want[0], grads, *want[1:], 10**6, lr=0.1, **BETAS)
    for got, wanted in zip([params, *state], want, strict=True):
        for a, b in zip(got, wanted, strict=True):
            off = np.abs(a - b) / (1 + np.abs(b))
            assert off.max(initial=0) <= 16 * np.finfo(dtype).eps


def test_sgd_exact(ops, dtype, random):
    """Powers of two for every factor: nothing is rounded."""
    params, grads = draw_all(random.integers, dtype), draw_all(random.integers, dtype)
    velocity = draw_all(random.integers, dtype)
    want_params, want_velocity = [p.copy() for p in params], [v.copy() for v in velocity]
    options = {"lr": 0.25, "momentum": 0.5, "nesterov": True, "weight_decay": 2.0}
    ops.sgd_step(params, grads, velocity, **options)
    reference.sgd_step(want_params, grads, want_velocity, **options)
    for got, want in zip([*params, *velocity], [*want_params, *want_velocity], strict=True):
        assert_exact(got, want, dtype)


def test_gradients_are_left_as_they_were(ops, dtype, random):
    grads = draw_all(random.normal, dtype)
    kept = [g.copy() for g in grads]
    ops.sgd_step(
        draw_all(random.normal, dtype), grads, zeros(dtype), lr=0.1, momentum=0.9, weight_decay=1.0
    )
    ops.adam_step(
        draw_all(random.normal, dtype),
        grads,
        zeros(dtype),
        zeros(dtype),
        1,
        lr=0.1,
        **BETAS,
        weight_decay=1.0,
    )
    for now, before in zip(grads, kept, strict=True):
        assert_exact(now, before, dtype)


def test_lr_and_step_may_be_arrays_of_one_element(ops, dtype, random):
    grads = draw_all(random.normal, dtype)
    start = draw_all(random.normal, dtype)
    results = []
    for lr, step in [(0.01, 3), (np.array([0.01]), np.array([3])), (np.array(0.01), np.array(3))]:
        sgd, adam = [p.copy() for p in start], [p.copy() for p in start]
        ops.sgd_step(sgd, grads, zeros(dtype), lr=lr, momentum=0.9)
        ops.adam_step(adam, grads, zeros(dtype), zeros(dtype), step, lr=lr, **BETAS)
        results.append(sgd + adam)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_exact(b, a, dtype)


def test_no_tensors(ops):
    ops.sgd_step([], [], [], lr=0.1)
    ops.adam_step([], [], [], [], 1, lr=0.1, **BETAS)


def test_zero_gradient_without_decay_changes_nothing(ops, dtype, random):
    params = draw_all(random.normal, dtype)
    before = [p.copy() for p in params]
    ops.sgd_step(params, zeros(dtype), zeros(dtype), lr=0.1, momentum=0.9)
    ops.adam_step(params, zeros(dtype), zeros(dtype), zeros(dtype), 1, lr=0.1, **BETAS)
    for now, then in zip(params, before, strict=True):
        assert_exact(now, then, dtype)


def test_nan_stays_in_its_element(ops, dtype, random):
    params, grads = [random.normal(33, dtype)], [random.normal(33, dtype)]
    grads[0][7] = np.nan
    ops.adam_step(params, grads, [np.zeros(33, dtype)], [np.zeros(33, dtype)], 1, lr=0.1, **BETAS)
    np.testing.assert_array_equal(np.isnan(params[0]), np.arange(33) == 7)
