from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from devices import assert_neighbours_untouched, poisoned
from numerics import Random, assert_close, assert_exact

# (N, classes)
SHAPES = [(1, 1), (1, 2), (4, 10), (33, 3), (7, 17), (300, 10), (2, 1000)]


def targets(kind, n, classes, random, dtype=np.float64):
    ids = random.integers(n, np.int64, low=0, high=classes - 1)
    if kind == "one_hot":
        return np.eye(classes, dtype=dtype)[ids]
    if kind == "probabilities":
        return reference.softmax_fwd(random.normal((n, classes))).astype(dtype)
    return ids.astype(kind)


def check(ops, dtype, logits, target, **options):
    loss, saved = ops.cross_entropy_fwd(logits, target, **options)
    want, want_saved = reference.cross_entropy_fwd(logits, target, **options)
    assert loss.shape == ()
    assert loss.dtype == dtype
    length = logits.shape[1]
    scale = max(1.0, np.abs(logits).max(initial=0))
    assert_close(loss, want, length=length, scale=scale)
    for factor in (1.0, 1024.0):
        dlogits = ops.cross_entropy_bwd(saved, scale=factor)
        assert dlogits.dtype == dtype
        want = reference.cross_entropy_bwd(want_saved, scale=factor)
        share = want_saved[1].sum(axis=1).max(initial=0)
        assert_close(dlogits, want, length=length, scale=factor * share)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["int32", "int64", "one_hot", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random(ops, dtype, shape, kind, label_smoothing, random):
    logits = 3 * random.normal(shape, dtype)
    target = targets(kind, *shape, random)
    weight = np.abs(random.normal(shape[1], dtype)) + dtype(0.1)
    for w in (None, weight):
        check(ops, dtype, logits, target, weight=w, label_smoothing=label_smoothing)


@pytest.mark.parametrize(
    "target_dtype", ["float32", "float64", "float16", "uint8", "bool", "int64"]
)
def test_one_hot_targets_of_any_real_dtype(ops, dtype, target_dtype, random):
    logits = random.normal((6, 5), dtype)
    target = targets("one_hot", 6, 5, random).astype(target_dtype)
    check(ops, dtype, logits, target)
    ids, _ = ops.cross_entropy_fwd(logits, target.argmax(axis=1))
    assert_close(ops.cross_entropy_fwd(logits, target)[0], np.float64(ids), length=5)


@pytest.mark.parametrize("ignore_index", [-100, 2, -1])
def test_ignored_targets(ops, dtype, ignore_index, random):
    logits = random.normal((9, 4), dtype)
    target = targets("int64", 9, 4, random)
    target[[1, 5]] = ignore_index
    weight = np.array([0.5, 2.0, 1.0, 0.25], dtype)
    for w in (None, weight):
        for label_smoothing in (0.0, 0.2):
            options = {"weight": w, "label_smoothing": label_smoothing}
            check(ops, dtype, logits, target, ignore_index=ignore_index, **options)
    _, saved = ops.cross_entropy_fwd(logits, target, ignore_index=ignore_index)
    assert_exact(ops.cross_entropy_bwd(saved)[[1, 5]], np.zeros((2, 4)), dtype)


def test_an_ignored_row_may_hold_anything(ops, dtype, random):
    logits = random.normal((3, 4), dtype)
    logits[1] = np.nan
    loss, saved = ops.cross_entropy_fwd(logits, np.array([0, -100, 3]))
    rest = logits[[0, 2]]
    assert_close(loss, reference.cross_entropy_fwd(rest, np.array([0, 3]))[0], length=4)
    dlogits = ops.cross_entropy_bwd(saved)
    assert_exact(dlogits[1], np.zeros(4), dtype)
    assert np.isfinite(dlogits).all()


@pytest.mark.parametrize("n", [0, 3])
def test_nothing_left(ops, dtype, n, random):
    """No target, or none that is not ignored: loss 0, gradient 0."""
    loss, saved = ops.cross_entropy_fwd(random.normal((n, 4), dtype), np.full(n, -100))
    assert_exact(loss, 0.0, dtype)
    assert_exact(ops.cross_entropy_bwd(saved), np.zeros((n, 4)), dtype)


@pytest.mark.parametrize("classes", [1, 2, 8])
def test_exact(ops, dtype, classes):
    """Equal logits, N and the number of classes powers of two: the gradient is not rounded."""
    logits, target = np.full((4, classes), 3, dtype), np.arange(4) % classes
    loss, saved = ops.cross_entropy_fwd(logits, target)
    assert_close(loss, np.array(np.log(classes)))
    want = (1 / classes - np.eye(classes)[target]) / 4
    assert_exact(ops.cross_entropy_bwd(saved), want, dtype)
    assert_exact(ops.cross_entropy_bwd(saved, scale=8.0), 8 * want, dtype)


def test_large_logits(ops, dtype):
    logits = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [0, 0, 80]], dtype)
    check(ops, dtype, logits, np.array([0, 1, 2]))
    check(ops, dtype, logits, np.array([2, 1, 0]))
    loss, _ = ops.cross_entropy_fwd(logits[:1], np.array([2]))
    assert loss == 2e4


def test_a_class_ruled_out(ops, dtype):
    """A logit of -inf has probability 0 and no say in the loss of the others."""
    logits = np.array([[-np.inf, 1, 1], [2, -np.inf, 2]], dtype)
    loss, saved = ops.cross_entropy_fwd(logits, np.array([1, 2]))
    assert_close(loss, np.array(np.log(2)))
    assert_close(ops.cross_entropy_bwd(saved), [[0, -0.25, 0.25], [0.25, 0, -0.25]])


def test_nan_logits_give_nan(ops, dtype, random):
    logits = random.normal((3, 4), dtype)
    logits[1, 2] = np.nan
    assert np.isnan(ops.cross_entropy_fwd(logits, np.array([0, 1, 2]))[0])


def test_poisoned_out(ops, dtype, random):
    logits, target = random.normal((7, 5), dtype), np.array([0, 1, 2, 3, 4, -100, 0])
    loss, saved = ops.cross_entropy_fwd(logits, target)
    dlogits = ops.cross_entropy_bwd(saved)

    given, buffer = poisoned((), dtype)
    back, saved = ops.cross_entropy_fwd(logits, target, out=(given, None))
    assert back is given
    assert_exact(given, loss, dtype)
    assert_neighbours_untouched("cross_entropy_fwd", buffer)

    given, buffer = poisoned((7, 5), dtype)
    assert ops.cross_entropy_bwd(saved, out=given) is given
    assert_exact(given, dlogits, dtype)
    assert_neighbours_untouched("cross_entropy_bwd", buffer)


def test_backward_twice(ops, dtype, random):
    _, saved = ops.cross_entropy_fwd(random.normal((4, 3), dtype), np.array([0, 1, 2, 0]))
    first = ops.cross_entropy_bwd(saved)
    assert_exact(ops.cross_entropy_bwd(saved), first, dtype)


@given(
    n=st.integers(1, 20),
    classes=st.integers(1, 20),
    kind=st.sampled_from(["int32", "int64", "one_hot", "probabilities"]),
    label_smoothing=st.sampled_from([0.0, 0.3]),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_drawn(ops, dtype, n, classes, kind, label_smoothing, weighted, seed):
    random = Random(seed)
    weight = np.abs(random.normal(classes, dtype)) + dtype(0.1) if weighted else None
    target = targets(kind, n, classes, random)
    logits = random.normal((n, classes), dtype)
    check(ops, dtype, logits, target, weight=weight, label_smoothing=label_smoothing)
