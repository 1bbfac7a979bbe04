"""Bad calls: each an error of the right type that names the operator, the rule and what was got."""

from __future__ import annotations

import re

import numpy as np
import pytest

import stapes.ops


def f32(*shape):
    return np.zeros(shape, np.float32)


def u8(*shape):
    return np.zeros(shape, np.uint8)


X, W, B = f32(2, 8, 8, 4), f32(16, 3, 3, 4), f32(16)
DY = f32(2, 6, 6, 16)
FUSED_DY, ARGMAX = f32(2, 3, 3, 16), u8(2, 3, 3, 16)
STATS = f32(4), f32(4), f32(4), f32(4)
TRAINED, NORM_DY, POOLED = {"training": True}, f32(2, 4, 4, 4), u8(2, 4, 4, 4)
FIRST = (B, B, f32(16), f32(16))
FIRST_FWD = "conv2d_batch_norm2d_relu_max_pool2d_fwd"
FIRST_BWD = "conv2d_batch_norm2d_relu_max_pool2d_bwd"
MEAN_FWD = "batch_norm2d_relu_global_avg_pool2d_fwd"
MEAN_BWD = "batch_norm2d_relu_global_avg_pool2d_bwd"
MEAN_KEPT = f32(4), f32(4, 4), f32(2, 2, 4)
LOGITS, IDS = f32(3, 5), np.array([0, 4, 2])
TWO_FLAGS = np.zeros(2, np.int32)
NAN_TARGET = np.full((3, 5), np.nan, np.float32)
SEEDED = {"seed": 0, "offset": 0}
ADAM = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
V, T = ValueError, TypeError

# (operator, arguments, keywords, error, what its message must hold beside the operator's name)
CASES = [
    # Convolution: shapes
    ("conv2d_fwd", (f32(8, 8, 4), W), {}, V, ["x", "(8,8,4)"]),
    ("conv2d_fwd", (X, f32(16, 3, 3)), {}, V, ["w", "(16,3,3)"]),
    ("conv2d_fwd", (X, f32(16, 3, 3, 3)), {}, V, ["(2,8,8,4)", "(16,3,3,3)"]),
    ("conv2d_fwd", (X, W, f32(15)), {}, V, ["b", "(15,)"]),
    ("conv2d_fwd", (X, W, f32(16, 1)), {}, V, ["b", "(16,1)"]),
    ("conv2d_fwd", (f32(2, 2, 8, 4), W), {}, V, ["3", "2"]),
    ("conv2d_fwd", (X, W), {"dilation": 4}, V, ["9", "8"]),
    ("conv2d_fwd", (f32(2, 0, 8, 4), W), {"padding": 1}, V, ["H", "0"]),
    ("conv2d_fwd", (X, f32(16, 0, 3, 4)), {}, V, ["kernel|w", "0"]),
    ("conv2d_fwd", (f32(2, 8, 8, 0), f32(16, 3, 3, 0)), {}, V, ["(2,8,8,0)"]),
    ("conv2d_fwd", (X, f32(0, 3, 3, 4)), {}, V, ["(0,3,3,4)"]),
    # Convolution: options
    ("conv2d_fwd", (X, W), {"stride": 0}, V, ["stride", "0"]),
    ("conv2d_fwd", (X, W), {"stride": (1, -1)}, V, ["stride", "-1"]),
    ("conv2d_fwd", (X, W), {"stride": (1, 1, 1)}, V, ["stride"]),
    ("conv2d_fwd", (X, W), {"stride": 1.5}, T, ["stride", "1.5|float"]),
    ("conv2d_fwd", (X, W), {"stride": "2"}, T, ["stride"]),
    ("conv2d_fwd", (X, W), {"dilation": 0}, V, ["dilation", "0"]),
    ("conv2d_fwd", (X, W), {"padding": -1}, V, ["padding", "-1"]),
    ("conv2d_fwd", (X, W), {"padding": ((0, -2), (0, 0))}, V, ["padding", "-2"]),
    ("conv2d_fwd", (X, W), {"padding": "full"}, V, ["padding", "full"]),
    ("conv2d_fwd", (X, W), {"padding": (1, 2, 3)}, V, ["padding"]),
    ("conv2d_fwd", (X, W), {"groups": 0}, V, ["groups", "0"]),
    ("conv2d_fwd", (X, W), {"groups": 3}, V, ["groups", "3"]),
    ("conv2d_fwd", (X, f32(15, 3, 3, 2)), {"groups": 2}, V, ["groups", "15"]),
    ("conv2d_fwd", (X, W), {"activation": "tanh"}, V, ["activation", "tanh"]),
    ("conv2d_fwd", (X, W), {"stride": 2**40}, V, ["stride", str(2**40)]),
    ("conv2d_fwd", (X, W), {"padding": 2**62}, V, ["padding"]),
    ("conv2d_fwd", (X, W), {"dilation": 2**62}, V, []),
    ("conv2d_fwd", (X, W), {"stride": 2**70}, V, ["stride"]),
    # Convolution: gradients
    ("conv2d_dgrad", (f32(2, 6, 5, 16), W, X.shape), {}, V, ["dy", "(2,6,5,16)"]),
    ("conv2d_dgrad", (f32(2, 6, 6, 15), W, X.shape), {}, V, ["dy", "(2,6,6,15)"]),
    ("conv2d_dgrad", (DY, W, (2, 8, 8)), {}, V, ["x_shape|x must|dx"]),
    ("conv2d_dgrad", (DY, W, (2, 8, 8, 5)), {}, V, ["5"]),
    ("conv2d_dgrad", (DY, W, (2, -8, 8, 4)), {}, V, ["-8"]),
    ("conv2d_dgrad", (DY, W, (3, 8, 8, 4)), {}, V, ["3"]),
    ("conv2d_wgrad", (f32(1, 6, 6, 16), X, W.shape), {}, V, ["dy", "(1,6,6,16)"]),
    ("conv2d_wgrad", (DY, X, (16, 3, 3, 3)), {}, V, ["3"]),
    ("conv2d_wgrad", (DY, X, (17, 3, 3, 4)), {}, V, ["17"]),
    ("conv2d_wgrad", (DY, X, (16, 3, 3)), {}, V, []),
    ("conv2d_bgrad", (f32(2, 16),), {}, V, ["dy", "(2,16)"]),
    # Fused
    ("conv2d_relu_max_pool2d_fwd", (X, W), {"pool": 0}, V, ["pool", "0"]),
    ("conv2d_relu_max_pool2d_fwd", (X, W), {"pool": 7}, V, ["7"]),
    ("conv2d_relu_max_pool2d_fwd", (X, f32(16, 3, 3, 3)), {}, V, ["(16,3,3,3)"]),
    ("conv2d_relu_max_pool2d_bwd", (f32(2, 3, 3, 15), ARGMAX, X, W), {}, V, ["(2,3,3,15)"]),
    ("conv2d_relu_max_pool2d_bwd", (FUSED_DY, u8(2, 3, 2, 16), X, W), {}, V, ["argmax"]),
    ("conv2d_relu_max_pool2d_bwd", (FUSED_DY, ARGMAX.astype("i8"), X, W), {}, T, ["argmax"]),
    ("conv2d_relu_max_pool2d_bwd", (FUSED_DY, ARGMAX + 4, X, W), {}, V, ["argmax"]),
    ("conv2d_relu_max_pool2d_bwd", (FUSED_DY, ARGMAX + 254, X, W), {}, V, ["argmax"]),
    # Transposed
    ("conv_transpose2d_fwd", (X, f32(5, 3, 3, 8)), {}, V, ["(2,8,8,4)", "(5,3,3,8)"]),
    ("conv_transpose2d_fwd", (X, f32(4, 3, 3, 8), f32(4)), {}, V, ["b", "(4,)"]),
    ("conv_transpose2d_fwd", (X, f32(4, 3, 3, 8)), {"output_padding": 1}, V, ["output_padding"]),
    ("conv_transpose2d_fwd", (X, f32(4, 3, 3, 8)), {"output_padding": -1}, V, ["-1"]),
    ("conv_transpose2d_fwd", (f32(1, 1, 1, 4), f32(4, 3, 3, 8)), {"padding": 2}, V, []),
    ("conv_transpose2d_dgrad", (f32(2, 9, 10, 8), f32(4, 3, 3, 8), X.shape), {}, V, ["dy"]),
    ("conv_transpose2d_wgrad", (f32(2, 9, 10, 8), X, (4, 3, 3, 8)), {}, V, ["dy"]),
    # Pools
    ("max_pool2d_fwd", (f32(8, 8, 4), 2), {}, V, ["(8,8,4)"]),
    ("max_pool2d_fwd", (X, 0), {}, V, ["kernel", "0"]),
    ("max_pool2d_fwd", (X, 9), {}, V, ["9"]),
    ("max_pool2d_fwd", (X, 2), {"stride": 0}, V, ["stride", "0"]),
    ("max_pool2d_fwd", (X, 3), {"padding": 2}, V, ["padding", "2"]),
    ("max_pool2d_fwd", (X, 3), {"padding": ((0, 0), (0, 2))}, V, ["padding", "2"]),
    ("max_pool2d_bwd", (f32(2, 4, 4, 4), u8(2, 4, 3, 4), X.shape, 2), {}, V, ["argmax"]),
    ("max_pool2d_bwd", (f32(2, 4, 3, 4), u8(2, 4, 3, 4), X.shape, 2), {}, V, ["(2,4,3,4)"]),
    ("max_pool2d_bwd", (f32(2, 4, 4, 4), f32(2, 4, 4, 4), X.shape, 2), {}, T, ["argmax"]),
    ("max_pool2d_bwd", (f32(2, 4, 4, 4), u8(2, 4, 4, 4) + 4, X.shape, 2), {}, V, ["argmax", "4"]),
    ("avg_pool2d_fwd", (X, (2, 9)), {}, V, ["9"]),
    ("avg_pool2d_bwd", (f32(2, 4, 3, 4), X.shape, 2), {}, V, ["dy", "(2,4,3,4)"]),
    ("global_avg_pool2d_fwd", (f32(2, 4),), {}, V, ["(2,4)"]),
    ("global_avg_pool2d_fwd", (f32(2, 0, 3, 4),), {}, V, ["H", "0"]),
    ("global_avg_pool2d_bwd", (f32(2, 5), X.shape), {}, V, ["(2,5)"]),
    ("upsample2d_fwd", (X, 0), {}, V, ["scale", "0"]),
    ("upsample2d_fwd", (X, 1.5), {}, T, ["scale"]),
    ("upsample2d_bwd", (f32(2, 7, 8, 4), 2), {}, V, ["(2,7,8,4)"]),
    # Linear
    ("linear_fwd", (f32(3, 5), f32(7, 4)), {}, V, ["(3,5)", "(7,4)"]),
    ("linear_fwd", (f32(3, 5), f32(7, 5), f32(5)), {}, V, ["b", "(5,)"]),
    ("linear_fwd", (f32(3, 5), f32(7, 5)), {"activation": "gelu"}, V, ["activation", "gelu"]),
    ("linear_fwd", (f32(5), f32(7, 5)), {}, V, ["(5,)"]),
    ("linear_dgrad", (f32(3, 6), f32(7, 5)), {}, V, ["(3,6)", "(7,5)"]),
    ("linear_wgrad", (f32(3, 7), f32(4, 5)), {}, V, ["(3,7)", "(4,5)"]),
    # Batch norm
    ("batch_norm2d_fwd", (X, f32(5), *STATS[1:]), {"training": True}, V, ["gamma", "(5,)"]),
    ("batch_norm2d_fwd", (f32(2, 4), *STATS), {"training": True}, V, ["(2,4)"]),
    ("batch_norm2d_fwd", (f32(1, 1, 1, 4), *STATS), {"training": True}, V, ["(1,1,1,4)"]),
    ("batch_norm2d_fwd", (f32(0, 3, 3, 4), *STATS), {"training": True}, V, ["(0,3,3,4)"]),
    ("batch_norm2d_fwd", (X, *STATS), {"training": True, "eps": -1.0}, V, ["eps", "-1"]),
    ("batch_norm2d_fwd", (X, *STATS), {"training": True, "momentum": 2.0}, V, ["momentum", "2"]),
    ("batch_norm2d_bwd", (f32(2, 8, 8, 5), X, *STATS[:3]), {}, V, ["dy", "(2,8,8,5)"]),
    ("batch_norm2d_bwd", (X, X.copy(), f32(4), f32(4), f32(3)), {}, V, ["rstd", "(3,)"]),
    (MEAN_FWD, (f32(2, 4), *STATS), TRAINED, V, ["(2,4)"]),
    (MEAN_FWD, (f32(2, 0, 3, 4), *STATS), {"training": False}, V, ["H", "0"]),
    (MEAN_FWD, (X, f32(5), *STATS[1:]), TRAINED, V, ["gamma", "(5,)"]),
    (MEAN_FWD, (X, *STATS), {**TRAINED, "out": (None, f32(3, 4), None)}, V, ["norm", "(3,4)"]),
    (MEAN_FWD, (X, *STATS), {**TRAINED, "eps": -1.0}, V, ["eps", "-1"]),
    (MEAN_BWD, (f32(2, 5), X, *MEAN_KEPT), {}, V, ["dy", "(2,5)"]),
    (MEAN_BWD, (f32(2, 4), X, f32(4), f32(4), f32(2, 2, 4)), {}, V, ["norm", "(4,)"]),
    (MEAN_BWD, (f32(2, 4), X, f32(4), f32(4, 4), f32(2, 4)), {}, V, ["alive", "(2,4)"]),
    (MEAN_BWD, (f32(2, 4), X, f32(4), f32(4, 4), np.zeros((2, 2, 4))), {}, T, ["alive", "float64"]),
    ("batch_norm2d_relu_max_pool2d_fwd", (X, *STATS), {**TRAINED, "pool": 0}, V, ["pool", "0"]),
    ("batch_norm2d_relu_max_pool2d_fwd", (X, *STATS), {**TRAINED, "pool": 9}, V, ["8", "9"]),
    ("batch_norm2d_relu_max_pool2d_fwd", (f32(2, 4), *STATS), TRAINED, V, ["2"]),
    ("batch_norm2d_relu_max_pool2d_fwd", (X, f32(5), *STATS[1:]), TRAINED, V, ["gamma", "(5,)"]),
    ("batch_norm2d_relu_max_pool2d_bwd", (X, POOLED, X, *STATS[:3]), {}, V, ["dy", "(2,8,8,4)"]),
    ("batch_norm2d_relu_max_pool2d_bwd", (NORM_DY, NORM_DY, X, *STATS[:3]), {}, T, ["argmax"]),
    ("batch_norm2d_relu_max_pool2d_bwd", (NORM_DY, POOLED + 4, X, *STATS[:3]), {}, V, ["argmax"]),
    ("batch_norm2d_relu_max_pool2d_bwd", (NORM_DY, POOLED + 254, X, *STATS[:3]), {}, V, ["argmax"]),
    ("batch_norm2d_relu_conv2d_fwd", (X, *STATS, f32(8, 1, 1, 3)), TRAINED, V, ["3", "4"]),
    ("batch_norm2d_relu_conv2d_fwd", (X, *STATS, W, f32(4)), TRAINED, V, ["b", "(4,)"]),
    ("batch_norm2d_relu_conv2d_fwd", (X, f32(3), *STATS[1:], W), TRAINED, V, ["gamma", "(3,)"]),
    ("batch_norm2d_relu_conv2d_fwd", (f32(2, 4), *STATS, W), TRAINED, V, ["(2,4)"]),
    ("batch_norm2d_relu_conv2d_fwd", (X, *STATS, W), {**TRAINED, "stride": 0}, V, ["stride", "0"]),
    ("batch_norm2d_relu_conv2d_bwd", (DY, X, f32(4), f32(3, 4), W), {}, V, ["norm", "(3,4)"]),
    ("batch_norm2d_relu_conv2d_bwd", (X, X, f32(4), f32(4, 4), W), {}, V, ["dy", "(2,8,8,4)"]),
    ("batch_norm2d_relu_conv2d_bwd", (DY, X, f32(4), u8(4, 4), W), {}, T, ["norm", "uint8"]),
    (FIRST_FWD, (X, W, f32(4), *FIRST), TRAINED, V, ["b", "(4,)"]),
    (FIRST_FWD, (X, f32(16, 3, 3, 3), None, *FIRST), TRAINED, V, ["3", "4"]),
    (FIRST_FWD, (X, W, B, *STATS), TRAINED, V, ["gamma", "(4,)"]),
    (FIRST_FWD, (X, W, B, *FIRST), {**TRAINED, "pool": 7}, V, ["6", "7"]),
    (FIRST_FWD, (f32(1, 3, 3, 4), W, B, *FIRST), {**TRAINED, "pool": 1}, V, ["(1,1,1,16)", "1"]),
    (FIRST_BWD, (DY, ARGMAX, X, W, B, B, B, B), {}, V, ["dy", "(2,6,6,16)"]),
    (FIRST_BWD, (FUSED_DY, ARGMAX + 4, X, W, B, B, B, B), {}, V, ["argmax"]),
    (FIRST_BWD, (FUSED_DY, ARGMAX, X, W, B, B, f32(4), B), {}, V, ["mean", "(4,)"]),
    # Dropout
    ("dropout_fwd", (X, 1.0), SEEDED, V, ["p", "1"]),
    ("dropout_fwd", (X, -0.1), SEEDED, V, ["p", "-0.1"]),
    ("dropout_fwd", (X, np.nan), SEEDED, V, ["p", "nan"]),
    ("dropout_fwd", (X, 0.5), {"seed": -1, "offset": 0}, V, ["seed", "-1"]),
    ("dropout_fwd", (X, 0.5), {"seed": 2**64, "offset": 0}, V, ["seed"]),
    ("dropout_fwd", (X, 0.5), {"seed": 0, "offset": -1}, V, ["offset", "-1"]),
    ("dropout_fwd", (X, 0.5), {"seed": 0, "offset": np.array([1, 2])}, V, ["offset"]),
    ("dropout_bwd", (X, 1.5), SEEDED, V, ["p", "1.5"]),
    ("dropout_fwd", (X, "half"), SEEDED, T, ["p"]),
    # Softmax, losses
    ("relu_bwd", (X, f32(2, 8, 8, 5)), {}, V, ["(2,8,8,4)", "(2,8,8,5)"]),
    ("softmax_fwd", (f32(),), {}, V, ["()"]),
    ("softmax_bwd", (f32(3, 5), f32(3, 4)), {}, V, ["(3,5)", "(3,4)"]),
    ("cross_entropy_fwd", (LOGITS, np.array([0, 5, 2])), {}, V, ["5"]),
    ("cross_entropy_fwd", (LOGITS, np.array([0, -1, 2])), {}, V, ["-1"]),
    ("cross_entropy_fwd", (LOGITS, np.array([0, 2**40, 2])), {}, V, [str(2**40)]),
    ("cross_entropy_fwd", (LOGITS, np.array([0, 1])), {}, V, ["target", "(2,)"]),
    ("cross_entropy_fwd", (LOGITS, IDS.astype(np.float32)), {}, T, ["target", "float32"]),
    ("cross_entropy_fwd", (LOGITS, IDS.astype(np.uint8)), {}, T, ["target", "uint8"]),
    ("cross_entropy_fwd", (LOGITS, f32(3, 4)), {}, V, ["target", "(3,4)"]),
    ("cross_entropy_fwd", (LOGITS, IDS[:, None]), {}, V, ["target", "(3,1)"]),
    ("cross_entropy_fwd", (LOGITS, NAN_TARGET), {}, V, ["target", "[Nn]a[Nn]"]),
    ("cross_entropy_fwd", (LOGITS, LOGITS.astype(complex)), {}, T, ["target", "complex"]),
    ("cross_entropy_fwd", (f32(5), IDS), {}, V, ["logits", "(5,)"]),
    ("cross_entropy_fwd", (f32(3, 0), IDS), {}, V, ["(3,0)"]),
    ("cross_entropy_fwd", (LOGITS, IDS), {"weight": f32(4)}, V, ["weight", "(4,)"]),
    ("cross_entropy_fwd", (LOGITS, IDS), {"label_smoothing": 1.5}, V, ["label_smoothing", "1.5"]),
    ("cross_entropy_fwd", (LOGITS, IDS), {"label_smoothing": -0.1}, V, ["label_smoothing"]),
    ("cross_entropy_bwd", (None,), {}, T, ["saved"]),
    ("mse_fwd", (f32(3, 4), f32(3, 5)), {}, V, ["(3,4)", "(3,5)"]),
    ("mse_fwd", (f32(3, 1), f32(3)), {}, V, ["(3,1)", "(3,)"]),
    ("mse_bwd", (f32(3, 4), f32(4, 3)), {}, V, ["(3,4)", "(4,3)"]),
    ("mse_bwd", (f32(3, 4), f32(3, 4)), {"scale": f32(2)}, V, ["scale", "(2,)"]),
    ("mse_bwd", (f32(3, 4), f32(3, 4)), {"scale": "big"}, T, ["scale"]),
    ("cross_entropy_fwd", (LOGITS, IDS), {"grad_scale": f32(2)}, V, ["grad_scale", "(2,)"]),
    ("cross_entropy_fwd", (LOGITS, IDS), {"grad_scale": None}, T, ["grad_scale"]),
    # Steps
    ("sgd_step", ([f32(3)], [f32(4)], [f32(3)]), {"lr": 0.1}, V, ["(3,)", "(4,)"]),
    ("sgd_step", ([f32(3)], [], [f32(3)]), {"lr": 0.1}, V, ["grads", "0"]),
    ("sgd_step", ([f32(3)], [f32(3)], []), {"lr": 0.1, "momentum": 0.9}, V, ["velocity", "0"]),
    ("sgd_step", ([f32(3)], [f32(3)], [f32(3)]), {"lr": "fast"}, T, ["lr"]),
    ("adam_step", ([f32(3)], [f32(3)], [f32(2)], [f32(3)], 1), ADAM, V, ["(2,)", "(3,)"]),
    ("adam_step", ([f32(3)], [f32(3)], [f32(3)], [f32(3)], 0), ADAM, V, ["step", "0"]),
    ("sgd_step", ([f32(3)], [f32(3)], None), {"lr": 0.1, "grad_scale": 0}, V, ["grad_scale", "0"]),
    ("sgd_step", ([f32(3)], [f32(3)], None), {"lr": 0.1, "found_inf": f32()}, T, ["found_inf"]),
    ("sgd_step", ([f32(3)], [f32(3)], None), {"lr": 0.1, "found_inf": TWO_FLAGS}, V, ["found_inf"]),
    ("adam_step", ([], [], [], [], 1), {**ADAM, "betas": (1.0, 0.9)}, V, ["beta"]),
    ("adam_step", ([], [], [], [], 1), {**ADAM, "betas": (0.9,)}, V, ["betas"]),
]  # fmt: skip


def name_of(case):
    op, args, kwargs, *_ = case
    shapes = [str(a.shape) if isinstance(a, np.ndarray) else str(a) for a in args]
    return f"{op}-{';'.join(shapes)}-{kwargs}"[:110]


def shown(shape):
    """However a tuple of sizes is set, with or without spaces."""
    return re.sub(r",\)", r",?\\)", re.escape(shape)).replace(r",\ ", ",").replace(",", r",\s?")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_bad_call(case):
    op, args, kwargs, error, fragments = case
    function = getattr(stapes.ops, op)
    with pytest.raises(error) as raised:
        function(*args, **kwargs)
    message = str(raised.value)
    assert message.startswith(f"{op}:"), message
    for fragment in fragments:
        pattern = shown(fragment) if fragment.startswith("(") else fragment
        assert re.search(pattern, message), f"{fragment!r} is not in {message!r}"


def test_the_form_of_a_message():
    """Operator, rule, and the arrays that were got."""
    rule = re.escape("conv2d_fwd: w.C (3) must equal x.C (4); x=(2,8,8,4)")
    with pytest.raises(ValueError, match=rule):
        stapes.ops.conv2d_fwd(X, f32(16, 3, 3, 3))


def test_out_is_untouched_by_a_call_that_fails():
    out = np.full((2, 6, 6, 16), 7, np.float32)
    with pytest.raises(ValueError, match="conv2d_fwd"):
        stapes.ops.conv2d_fwd(X, f32(16, 3, 3, 3), out=out)
    assert (out == 7).all()


def test_running_values_are_untouched_by_a_call_that_fails():
    mean, var = np.full(4, 3, np.float32), np.full(5, 3, np.float32)
    with pytest.raises(ValueError, match="batch_norm2d_fwd"):
        stapes.ops.batch_norm2d_fwd(X, f32(4), f32(4), mean, var, training=True)
    assert (mean == 3).all()


def test_params_are_untouched_by_a_step_that_fails():
    """The second tensor is wrong: the first must not have been stepped already."""
    params, grads = [np.ones(3, np.float32), np.ones(4, np.float32)], [np.ones(3, np.float32)]
    for wrong in (np.ones(5, np.float32), np.ones(4, np.float64)):
        with pytest.raises((ValueError, TypeError), match="sgd_step"):
            stapes.ops.sgd_step(params, [*grads, wrong], [f32(3), f32(4)], lr=0.1, momentum=0.9)
        assert (params[0] == 1).all()


def test_arguments_after_the_star_are_keywords():
    with pytest.raises(TypeError):
        stapes.ops.conv2d_fwd(X, W, B, 1)
    with pytest.raises(TypeError):
        stapes.ops.dropout_fwd(X, 0.5, 1, 2)
