"""Bad calls of the operators that take blocks: errors name the block, the rule and what was got."""

from __future__ import annotations

import re

import numpy as np
import pytest

import stapes.ops
from chains import BWD, FWD
from stapes.ops import NormConv

V, T = ValueError, TypeError


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


X, DY = zeros(2, 6, 5, 4), zeros(2, 6, 5, 8)
KEPT = [(zeros(2, 6, 5, 8), zeros(4, 4)), (DY.copy(), zeros(4, 8))]


def block(c, k, **changes):
    """A 1x1 convolution."""
    given = NormConv(*(zeros(c) for _ in range(4)), zeros(k, 1, 1, c))
    return given._replace(**changes)


def blocks(**changes):
    """Two, of which the second is changed."""
    return [block(4, 8), block(8, 8, **changes)]


def test_the_call_without_the_error():
    stapes.ops.batch_norm2d_relu_conv2d_chain_fwd(X, blocks())
    stapes.ops.batch_norm2d_relu_conv2d_chain_bwd(DY, X, blocks(), KEPT)


# What is wrong with a block, and the rule that its error tells.
WRONG = [
    ({"w": zeros(8, 1, 1, 4)}, V, "w.C (4) must equal x.C (8)"),
    ({"w": zeros(8, 1, 1)}, V, "w must have 4 dimensions (K,R,S,C), got 3"),
    ({"w": zeros(8, 1, 1, 8, dtype=np.float64)}, T, "w must be float32, got float64"),
    ({"w": [0.0]}, T, "w must be a NumPy or CuPy array, got list"),
    ({"gamma": zeros(4)}, V, "gamma must have shape (8,), got (4,)"),
    ({"gamma": zeros(8, dtype=np.uint8)}, T, "gamma must be float32, got uint8"),
    ({"stride": 0}, V, "stride must be at least 1, got 0"),
    ({"groups": 3}, V, "x.C (8) must be a multiple of groups (3)"),
    ({"padding": "full"}, V, "padding must be"),
    ({"dilation": 1.5}, T, "dilation must be an integer, got float"),
    ({"training": 1}, T, "training must be True or False, got int"),
]
WRONG_FWD = [
    ({"beta": zeros(7)}, V, "beta must have shape (8,), got (7,)"),
    ({"b": zeros(4)}, V, "b must have shape (8,), got (4,)"),
    ({"running_mean": zeros(8, dtype=np.float64)}, T, "running_mean must be float32, got float64"),
    ({"running_var": zeros(16)[::2]}, V, "running_var must be C-contiguous"),
    ({"eps": -1.0}, V, "eps must be at least 0, got -1"),
    ({"momentum": 1.5}, V, "momentum must be in [0, 1], got 1.5"),
    ({"momentum": "much"}, T, "momentum must be a number, got str"),
]


def refused(error, told, op, *args, **kwargs):
    with pytest.raises(error, match=re.escape(op + told)):
        getattr(stapes.ops, op)(*args, **kwargs)


@pytest.mark.parametrize(("changes", "error", "rule"), WRONG, ids=lambda v: str(v)[:40])
def test_a_wrong_block(changes, error, rule):
    refused(error, f", block 1: {rule}", FWD, X, blocks(**changes))
    refused(error, f", block 1: {rule}", BWD, DY, X, blocks(**changes), KEPT)


@pytest.mark.parametrize(("changes", "error", "rule"), WRONG_FWD, ids=lambda v: str(v)[:40])
def test_a_block_that_is_wrong_for_the_forward(changes, error, rule):
    refused(error, f", block 1: {rule}", FWD, X, blocks(**changes))


def test_no_blocks():
    refused(V, ": there must be at least 1 block, got 0", FWD, X, [])
    refused(V, ": there must be at least 1 block, got 0", BWD, DY, X, [], [])


def test_the_first_input():
    refused(V, ", block 0: x must have 4 dimensions", FWD, zeros(2, 4), blocks())
    refused(V, ", block 0: w.C (4) must equal x.C (5)", FWD, zeros(2, 6, 5, 5), blocks())
    refused(T, ": x must be a NumPy or CuPy array, got list", FWD, [1.0], blocks())


def test_one_value_for_each_channel_has_no_variance():
    """The first block has several, the second no more."""
    told = ", block 1: training needs more than 1 value per channel (N*H*W), got 1"
    first = block(4, 8, w=zeros(8, 3, 3, 4))
    refused(V, told, FWD, zeros(1, 3, 3, 4), [first, block(8, 8)])


def test_precision():
    told = {"tf32": ', block 0: precision other than "fp32"', "half": ": precision must be one of"}
    for name, rule in told.items():
        refused(V, rule, FWD, X, blocks(), precision=name)
        refused(V, rule, BWD, DY, X, blocks(), KEPT, precision=name)


def test_kept():
    def wrong(error, told, y=KEPT[0][0], norm=KEPT[1][1], dy=DY):
        kept = [(y, KEPT[0][1]), (DY.copy(), norm)]
        refused(error, told, BWD, dy, X, blocks(), kept)

    refused(V, ": kept must have 2 entries, got 1", BWD, DY, X, blocks(), KEPT[:1])
    wrong(V, ", block 1: norm must have shape (4,8), got (3,8)", norm=zeros(3, 8))
    wrong(T, ", block 1: norm must be float32, got uint8", norm=zeros(4, 8, dtype=np.uint8))
    wrong(V, ", block 1: dy must have shape (2,6,5,8), got (2,6,5,4)", dy=X)
    wrong(V, ", block 0: ", y=zeros(2, 6, 4, 8))
    wrong(T, ", block 0: ", y=DY.astype(np.float64))


def test_the_form_of_out():
    two, four = (None,) * 2, (None,) * 4
    refused(V, ": out must have 2 entries, got 1", FWD, X, blocks(), out=[two])
    refused(V, ": out must have 2 entries, got 3", FWD, X, blocks(), out=[two] * 3)
    refused(T, ": out must be a tuple", FWD, X, blocks(), out=5)
    refused(V, ", block 1: out must have 2 entries, got 4", FWD, X, blocks(), out=[two, four])
    refused(T, ", block 1: out must be a tuple", FWD, X, blocks(), out=[two, DY.copy()])
    for told, out in (
        (": out must have 2 entries, got 3", (None, None, None)),
        (": out must have 2 entries, got 1", (None, [four])),
        (", block 1: out must have 4 entries, got 2", (None, [four, two])),
    ):
        refused(V, told, BWD, DY, X, blocks(), KEPT, out=out)


def test_wrong_out():
    def wrong(error, told, *out):
        refused(error, ", block 1: " + told, FWD, X, blocks(), out=[(None, None), out])

    wrong(V, "out[0] (y) must have shape (2, 6, 5, 8), got (2, 6, 5, 7)", zeros(2, 6, 5, 7), None)
    wrong(T, "norm must be float32, got float64", None, zeros(4, 8, dtype=np.float64))

    def gradient(error, told, *out):
        out = None, [(None,) * 4, out]
        refused(error, ", block 1: " + told, BWD, DY, X, blocks(), KEPT, out=out)

    gradient(V, "out[3] (db) must be None without b", None, None, None, zeros(8))
    gradient(V, "out[2] (dw) must have shape (8, 1, 1, 8)", None, None, zeros(8, 1, 1, 7), None)
    gradient(T, "dgamma must be float32, got float64", zeros(8, dtype=np.float64), None, None, None)


def test_arrays_of_two_blocks_that_overlap():
    y, same, nothing = zeros(2, 6, 5, 8), zeros(8), (None, None)
    w = y.ravel()[:64].reshape(8, 1, 1, 8)
    refused(V, ", block 1: y must not overlap x", FWD, X, blocks(), out=[(y, None), (y, None)])
    refused(V, ": y must not overlap w", FWD, X, blocks(w=w), out=[(y, None), nothing])
    eights = [block(8, 8, running_mean=same), block(8, 8, running_mean=same)]
    refused(V, ": running_mean must not overlap running_mean", FWD, DY, eights)
    eights = [block(8, 8, gamma=same), block(8, 8, running_var=same)]
    refused(V, ": running_var must not overlap gamma", FWD, DY, eights)

    args = DY, DY.copy(), [block(8, 8), block(8, 8)], [KEPT[1]] * 2
    out = None, [(same, None, None, None), (None, same, None, None)]
    refused(V, ": dgamma must not overlap dbeta", BWD, *args, out=out)
    refused(V, ": dx must not overlap x", BWD, *args, out=(KEPT[1][0], None))
    refused(V, ": dx must not overlap dy", BWD, *args, out=(DY, None))


def test_nothing_is_changed_by_a_call_that_fails():
    first, y = block(4, 8, running_mean=zeros(4) + 3), zeros(2, 6, 5, 8) + 7
    for second in (block(8, 8, gamma=zeros(4)), block(8, 8, w=zeros(8, 3, 7, 8))):
        refused(V, ", block 1: ", FWD, X, [first, second], out=[(y, None), (None, None)])
        assert (first.running_mean == 3).all()
        assert (y == 7).all()
