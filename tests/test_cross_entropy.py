from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from devices import assert_neighbours_untouched, poisoned
from numerics import Random, assert_close, assert_exact, wide

# (N, classes)
SHAPES = [(1, 1), (1, 2), (4, 10), (33, 3), (7, 17), (300, 10), (2, 1000)]


def targets(kind, n, classes, random, dtype=np.float64):
    ids = random.integers(n, np.int64, low=0, high=classes - 1)
    if kind == "one_hot":
        return np.eye(classes, dtype=dtype)[ids]
    if kind == "probabilities":
        return reference.softmax_fwd(random.normal((n, classes))).astype(dtype)
    return ids.astype(kind)


def weights(classes, dtype, random):
    return (np.abs(random.normal(classes)) + 0.1).astype(wide(dtype))


def check(ops, dtype, logits, target, **options):
    loss, saved = ops.cross_entropy_fwd(logits, target, **options)
    if target.ndim == 2:
        target = target.astype(dtype)  # as the operator does
    want, want_saved = reference.cross_entropy_fwd(logits, target, **options)
    assert loss.shape == ()
    assert loss.dtype == wide(dtype)
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
    weight = weights(shape[1], dtype, random)
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
    weight = np.array([0.5, 2.0, 1.0, 0.25], wide(dtype))
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
    assert_exact(loss, 0.0, wide(dtype))
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
    assert loss == 2 * np.float64(dtype(1e4))


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

    given, buffer = poisoned((), wide(dtype))
    back, saved = ops.cross_entropy_fwd(logits, target, out=(given, None))
    assert back is given
    assert_exact(given, loss, wide(dtype))
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
    weight = weights(classes, dtype, random) if weighted else None
    target = targets(kind, n, classes, random)
    logits = random.normal((n, classes), dtype)
    check(ops, dtype, logits, target, weight=weight, label_smoothing=label_smoothing)


# On CUDA: the last and first widths of each kind of group; one block alone, and more; all of their
# partial sums; and more rows than a grid takes at once.
EDGES = [(3, 32), (256, 32), (257, 32), (2, 33), (64, 1024), (65, 1024), (8, 1025), (9, 1025)]
EDGES += [(16_420, 3)]


@pytest.mark.parametrize("kind", ["int32", "probabilities"])
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(ops, dtype, shape, kind, random):
    logits, target = 3 * random.normal(shape, dtype), targets(kind, *shape, random)
    if kind == "int32":
        target[-1] = -100
    check(ops, dtype, logits, target, weight=weights(shape[1], dtype, random), label_smoothing=0.1)


@pytest.mark.parametrize("shape", [(3, 4), (300, 4)], ids=str)
@pytest.mark.parametrize("wrong", [-1, 4, 2**40])
def test_ids_out_of_range(ops, dtype, wrong, shape, random):
    """CUDA does not wait to tell: the loss is NaN."""
    logits, target = random.normal(shape, dtype), np.zeros(shape[0], np.int64)
    target[1] = wrong
    if ops.kernels == "cpu":
        with pytest.raises(ValueError, match=f"target.*{wrong}"):
            ops.cross_entropy_fwd(logits, target)
    else:
        assert np.isnan(ops.cross_entropy_fwd(logits, target)[0])


def test_scales_may_be_arrays_of_one_element(ops, dtype, random):
    logits, target = random.normal((5, 3), dtype), np.array([0, 1, 2, 1, 0])
    want = ops.cross_entropy_bwd(ops.cross_entropy_fwd(logits, target, grad_scale=4.0)[1], scale=8)
    for make in (np.float32, np.float64, np.int32, np.int64):
        _, saved = ops.cross_entropy_fwd(logits, target, grad_scale=np.array([4], make))
        assert_exact(ops.cross_entropy_bwd(saved, scale=np.array(8, make)), want, dtype)


def test_grad_scale_before_rounding(ops, dtype):
    """What would become 0 in float16 is as exact as the rest where it is scaled at once."""
    logits, target = np.tile(np.array([-16, 0], dtype), (64, 1)), np.ones(64, np.int64)
    _, saved = ops.cross_entropy_fwd(logits, target, grad_scale=2.0**16)
    _, want = reference.cross_entropy_fwd(logits, target)
    want = reference.cross_entropy_bwd(want, scale=2.0**16)
    assert_close(ops.cross_entropy_bwd(saved)[:, 0], want[:, 0])
