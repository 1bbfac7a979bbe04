from __future__ import annotations

import numpy as np
import pytest

import reference
from devices import surrounded
from numerics import assert_close, assert_exact, wide

# The last ones: a block of CUDA's (4096 elements), and more than that.
SHAPES = [(3, 4), (1,), (17,), (2, 3, 3, 5), (0,), (1000,), (4096,), (4099,)]

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
    params = draw_all(random.normal, wide(dtype))
    state = [zeros(wide(dtype)) for _ in range(state_count)]
    want_params = [p.astype(np.float64) for p in params]
    want_state = [zeros(np.float64) for _ in range(state_count)]
    for step in range(1, count + 1):
        grads = draw_all(random.normal, dtype)
        steps(None, params, grads, state, step)
        steps(reference, want_params, grads, want_state, step)
    for got, want in zip([params, *state], [want_params, *want_state], strict=True):
        for a, b in zip(got, want, strict=True):
            assert a.dtype == wide(dtype)
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
    full = wide(dtype)
    params, grads = draw_all(random.normal, full), draw_all(random.normal, dtype)
    state = draw_all(random.normal, full), [g**2 for g in draw_all(random.normal, full)]
    want = [[a.astype(np.float64) for a in arrays] for arrays in (params, *state)]
    ops.adam_step(params, grads, *state, 10**6, lr=0.1, **BETAS)
    reference.adam_step(want[0], grads, *want[1:], 10**6, lr=0.1, **BETAS)
    for got, wanted in zip([params, *state], want, strict=True):
        for a, b in zip(got, wanted, strict=True):
            off = np.abs(a - b) / (1 + np.abs(b))
            assert off.max(initial=0) <= 16 * np.finfo(full).eps


def test_sgd_exact(ops, dtype, random):
    """Powers of two for every factor: nothing is rounded."""
    full = wide(dtype)
    params, grads = draw_all(random.integers, full), draw_all(random.integers, dtype)
    velocity = draw_all(random.integers, full)
    want_params, want_velocity = [p.copy() for p in params], [v.copy() for v in velocity]
    options = {"lr": 0.25, "momentum": 0.5, "nesterov": True, "weight_decay": 2.0}
    ops.sgd_step(params, grads, velocity, **options)
    reference.sgd_step(want_params, grads, want_velocity, **options)
    for got, want in zip([*params, *velocity], [*want_params, *want_velocity], strict=True):
        assert_exact(got, want, full)


def test_gradients_are_left_as_they_were(ops, dtype, random):
    grads = draw_all(random.normal, dtype)
    kept = [g.copy() for g in grads]
    full = wide(dtype)
    params, state = draw_all(random.normal, full), (zeros(full), zeros(full))
    ops.sgd_step(params, grads, state[0], lr=0.1, momentum=0.9, weight_decay=1.0)
    ops.adam_step(params, grads, *state, 1, lr=0.1, **BETAS, weight_decay=1.0)
    for now, before in zip(grads, kept, strict=True):
        assert_exact(now, before, dtype)


def test_lr_and_step_may_be_arrays_of_one_element(ops, dtype, random):
    grads, full = draw_all(random.normal, dtype), wide(dtype)
    start = draw_all(random.normal, full)
    results = []
    given = [(0.125, 3), (np.array([0.125]), np.array([3])), (np.array(0.125), np.array(3))]
    given += [(np.array(0.125, np.float32), np.array(3, t)) for t in (np.int32, np.float32)]
    for lr, step in given:
        sgd, adam = [p.copy() for p in start], [p.copy() for p in start]
        ops.sgd_step(sgd, grads, zeros(full), lr=lr, momentum=0.9)
        ops.adam_step(adam, grads, zeros(full), zeros(full), step, lr=lr, **BETAS)
        results.append(sgd + adam)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_exact(b, a, full)


def test_no_tensors(ops):
    ops.sgd_step([], [], [], lr=0.1)
    ops.adam_step([], [], [], [], 1, lr=0.1, **BETAS)


def test_zero_gradient_without_decay_changes_nothing(ops, dtype, random):
    full = wide(dtype)
    params = draw_all(random.normal, full)
    before = [p.copy() for p in params]
    ops.sgd_step(params, zeros(dtype), zeros(full), lr=0.1, momentum=0.9)
    ops.adam_step(params, zeros(dtype), zeros(full), zeros(full), 1, lr=0.1, **BETAS)
    for now, then in zip(params, before, strict=True):
        assert_exact(now, then, full)


def test_nan_stays_in_its_element(ops, dtype, random):
    params, grads = [random.normal(33, wide(dtype))], [random.normal(33, dtype)]
    grads[0][7] = np.nan
    m, v = np.zeros((2, 33), wide(dtype))
    ops.adam_step(params, grads, [m], [v], 1, lr=0.1, **BETAS)
    np.testing.assert_array_equal(np.isnan(params[0]), np.arange(33) == 7)


def step_both(ops, params, grads, state, **options):
    """One step of SGD and then of Adam, both with all their state."""
    ops.sgd_step(params, grads, state[0], lr=0.125, momentum=0.5, **options)
    ops.adam_step(params, grads, *state[1:], 1, lr=0.125, **BETAS, **options)


def draw_arguments(random, dtype):
    full = wide(dtype)
    state = [draw_all(random.normal, full), draw_all(random.normal, full), zeros(full)]
    return draw_all(random.normal, full), draw_all(random.normal, dtype), state


def copied(params, state):
    return [p.copy() for p in params], [[a.copy() for a in arrays] for arrays in state]


def assert_all_exact(got, want, dtype):
    for a, b in zip(got, want, strict=True):
        assert_exact(a, b, dtype)


def test_many_tensors(ops, dtype, random):
    """More than fit into the arguments of one launch on CUDA."""
    shapes = [(i % 7,) for i in range(200)]
    params = [random.normal(shape, wide(dtype)) for shape in shapes]
    grads = [random.normal(shape, dtype) for shape in shapes]
    want = [np.float64(p) - 0.125 * np.float64(g) for p, g in zip(params, grads, strict=True)]
    ops.sgd_step(params, grads, None, lr=0.125)
    for a, b in zip(params, want, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("odd", range(5))
def test_arrays_at_any_address(ops, dtype, odd, random):
    """Where one array of each tensor begins at no multiple of 16 bytes, results are the same."""
    params, grads, state = draw_arguments(random, dtype)
    lists = [[a.copy() for a in arrays] for arrays in (params, grads, *state)]
    lists[odd] = [surrounded(a)[0] for a in lists[odd]]
    step_both(ops, params, grads, state)
    step_both(ops, lists[0], lists[1], lists[2:])
    for got, want in zip(lists, [params, grads, *state], strict=True):
        assert_all_exact(got, want, want[0].dtype)


def test_copies(ops, dtype, random):
    """16-bit copies are the updated parameters, rounded; the CPU has none."""
    params, grads, state = draw_arguments(random, dtype)
    for half in (t for t in ops.dtypes if np.dtype(t).itemsize == 2):
        copies = [np.full(p.shape, np.nan, half) for p in params]
        ops.sgd_step(params, grads, state[0], lr=0.125, momentum=0.5, copies=copies)
        assert_all_exact(copies, params, half)
        ops.adam_step(params, grads, *state[1:], 1, lr=0.125, **BETAS, copies=copies)
        assert_all_exact(copies, params, half)
        copies = [surrounded(c)[0] for c in copies]
        ops.sgd_step(params, grads, state[0], lr=0.125, momentum=0.5, copies=copies)
        assert_all_exact(copies, params, half)
    if ops.kernels == "cpu":
        copies = [p.astype(np.float16) for p in params]
        with pytest.raises(TypeError, match="copies"):
            ops.sgd_step(params, grads, None, lr=0.125, copies=copies)


@pytest.mark.parametrize("scale", [1024.0, np.array([1024.0], np.float32)], ids=["number", "array"])
def test_grad_scale(ops, dtype, scale, random):
    """Gradients that carry a factor, a power of two, give the same bits as without it."""
    params, grads, state = draw_arguments(random, dtype)
    grads = [g.astype(np.float16).astype(dtype) for g in grads]  # their product is not rounded
    others, other_state = copied(params, state)
    step_both(ops, params, grads, state)
    scaled = [g * dtype(1024) for g in grads]
    step_both(ops, others, scaled, other_state, grad_scale=scale)
    for got, want in zip([others, *other_state], [params, *state], strict=True):
        assert_all_exact(got, want, wide(dtype))


@pytest.mark.parametrize("found", [0, 1, 3])
def test_found_inf(ops, dtype, found, random):
    params, grads, state = draw_arguments(random, dtype)
    others, other_state = copied(params, state)
    grads[2][3] = np.inf
    if not found:
        step_both(ops, params, grads, state)
    step_both(ops, others, grads, other_state, found_inf=np.array(found, np.int32))
    for got, want in zip([others, *other_state], [params, *state], strict=True):
        assert_all_exact(got, want, wide(dtype))
