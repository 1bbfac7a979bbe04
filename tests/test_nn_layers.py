"""Every layer by itself: shapes, gradients, arguments, states."""

import json

import numpy as np
import pytest

from gradients import check_gradients
from stapes import nn

# name -> (layer, input shape with N, output shape with N)
CASES = {
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 6, 5, 3), (2, 4, 3, 4)),
    "conv_same_stride": (
        lambda: nn.Conv2d(None, 4, (3, 2), stride=(2, 1), padding="same"),
        (2, 7, 5, 3),
        (2, 4, 5, 4),
    ),
    "conv_asymmetric_dilated": (
        lambda: nn.Conv2d(2, 3, 3, padding=((1, 2), (0, 3)), dilation=2),
        (2, 5, 6, 2),
        (2, 4, 5, 3),
    ),
    "conv_groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 4, 4), (2, 4, 4, 6)),
    "conv_depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 4, 4), (2, 2, 2, 4)),
    "conv_no_bias": (lambda: nn.Conv2d(2, 3, 1, bias=False), (2, 3, 3, 2), (2, 3, 3, 3)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 9, 3), (2, 5, 4)),
    "conv1d_asymmetric": (lambda: nn.Conv1d(None, 4, 3, padding=(2, 0)), (2, 9, 3), (2, 9, 4)),
    "conv1d_same": (
        lambda: nn.Conv1d(4, 4, 4, padding="same", dilation=2, groups=2),
        (2, 9, 4),
        (2, 9, 4),
    ),
    "conv_transpose": (
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        (2, 4, 3, 3),
        (2, 8, 6, 4),
    ),
    "conv_transpose_plain": (
        lambda: nn.ConvTranspose2d(None, 2, (2, 3), bias=False),
        (2, 4, 3, 3),
        (2, 5, 5, 2),
    ),
    "linear": (lambda: nn.Linear(7, 5), (3, 7), (3, 5)),
    "linear_no_bias": (lambda: nn.Linear(None, 5, bias=False), (3, 7), (3, 5)),
    "relu": (lambda: nn.ReLU(), (2, 3, 4, 5), (2, 3, 4, 5)),
    "max_pool": (lambda: nn.MaxPool2d(2), (2, 5, 4, 3), (2, 2, 2, 3)),
    "max_pool_padded": (
        lambda: nn.MaxPool2d((3, 2), stride=(2, 1), padding=1),
        (2, 5, 4, 3),
        (2, 3, 5, 3),
    ),
    "avg_pool": (lambda: nn.AvgPool2d(2), (2, 5, 4, 3), (2, 2, 2, 3)),
    "avg_pool_padded": (
        lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        (2, 5, 4, 3),
        (2, 3, 2, 3),
    ),
    "global_avg_pool": (lambda: nn.GlobalAvgPool2d(), (2, 5, 4, 3), (2, 3)),
    "time_mean": (lambda: nn.TimePool(), (2, 5, 4, 3), (2, 1, 4, 3)),
    "time_max": (lambda: nn.TimePool("max"), (2, 5, 4, 3), (2, 1, 4, 3)),
    "time_mean_max": (lambda: nn.TimePool("mean_max"), (2, 5, 4, 3), (2, 1, 4, 6)),
    "time_long": (lambda: nn.TimePool("mean_max"), (1, 300, 2, 1), (1, 1, 2, 2)),
    "batch_norm": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 3), (4, 3, 2, 3)),
    "batch_norm_arguments": (
        lambda: nn.BatchNorm2d(None, eps=0.1, momentum=0.5),
        (4, 3, 2, 3),
        (4, 3, 2, 3),
    ),
    "dropout": (lambda: nn.Dropout(0.4, seed=3), (4, 3, 2, 3), (4, 3, 2, 3)),
    "flatten": (lambda: nn.Flatten(), (2, 3, 4, 5), (2, 60)),
    "softmax": (lambda: nn.Softmax(), (3, 5), (3, 5)),
    "upsample": (lambda: nn.Upsample2d((2, 3)), (2, 3, 2, 4), (2, 6, 6, 4)),
    "residual": (
        lambda: nn.Residual(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()),
        (2, 4, 4, 3),
        (2, 4, 4, 3),
    ),
    "sequential": (
        lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sequential(nn.ReLU(), nn.Flatten())),
        (2, 4, 4, 3),
        (2, 32),
    ),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request):
    make, x_shape, y_shape = CASES[request.param]
    return make(), x_shape, y_shape


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_gradients(case, rng):
    layer, x_shape, _ = case
    check_gradients(layer, rng.standard_normal(x_shape), rng)


def test_shapes_and_dtypes(case, rng):
    layer, x_shape, y_shape = case
    assert layer.output_shape(x_shape[1:]) == y_shape[1:]
    x = rng.standard_normal(x_shape).astype(np.float32)
    y = layer.train().forward(x)
    assert (y.shape, y.dtype) == (y_shape, np.float32)
    assert layer.backward(np.ones_like(y)).dtype == np.float32
    assert all(p.dtype == p.grad.dtype == np.float32 for p in layer.parameters())
    assert all(p.shape == p.grad.shape for p in layer.parameters())
    assert layer.build(x_shape[1:]) == y_shape[1:]


def test_any_batch_size(case, rng):
    layer, x_shape, y_shape = case
    for n in (1, 3):
        y = layer.eval().forward(rng.standard_normal((n, *x_shape[1:])).astype(np.float32))
        assert y.shape == (n, *y_shape[1:])


def test_config_rebuilds_it(case, rng):
    layer, x_shape, _ = case
    layer.build(x_shape[1:])
    config = json.loads(json.dumps(layer.config()))
    again = nn.from_config(config)
    assert type(again) is type(layer)
    assert repr(again) == repr(layer)
    assert again.config() == layer.config()
    again.load_state_dict(layer.state_dict())
    x = rng.standard_normal(x_shape).astype(np.float32)
    np.testing.assert_array_equal(again.eval().forward(x), layer.eval().forward(x))


def test_backward_once_after_forward_in_training(case, rng):
    layer, x_shape, y_shape = case
    x, dy = np.ones(x_shape, np.float32), np.ones(y_shape, np.float32)
    with pytest.raises(RuntimeError, match=r"once after each forward in train\(\) mode"):
        layer.backward(dy)
    layer.forward(x)
    layer.backward(dy)
    with pytest.raises(RuntimeError, match="once after each forward"):
        layer.backward(dy)
    layer.forward(x)
    layer.eval()
    layer.forward(x)
    with pytest.raises(RuntimeError, match="once after each forward"):
        layer.backward(dy)


def test_input_is_left_alone(case, rng):
    layer, x_shape, y_shape = case
    x = rng.standard_normal(x_shape).astype(np.float32)
    dy = rng.standard_normal(y_shape).astype(np.float32)
    kept_x, kept_dy = x.copy(), dy.copy()
    layer.forward(x)
    layer.backward(dy)
    np.testing.assert_array_equal(x, kept_x)
    np.testing.assert_array_equal(dy, kept_dy)


def test_a_refused_input_leaves_sizes_open():
    layer = nn.Conv2d(None, 4, 3, groups=2)
    with pytest.raises(ValueError, match=r"groups \(2\) must divide in_channels \(3\)"):
        layer.build((5, 5, 3))
    with pytest.raises(ValueError, match="would be below 1"):
        layer.build((2, 2, 2))
    assert layer.in_channels is None
    assert layer.build((5, 5, 2)) == (3, 3, 4)


def test_wrong_rank_names_the_layer(case):
    layer, _, _ = case
    if isinstance(layer, nn.ReLU | nn.Dropout | nn.Flatten | nn.Softmax):
        pytest.skip("takes any rank")
    with pytest.raises(ValueError, match=r"\(\w+\): takes inputs of shape|: takes inputs of shape"):
        layer.output_shape((3, 3, 3, 3))


def test_he_uniform_weights_and_zero_bias():
    for layer, fan_in in (
        (nn.Conv2d(16, 64, 3, groups=2), 72),
        (nn.Conv1d(16, 64, 5), 80),
        (nn.Linear(200, 100), 200),
        (nn.ConvTranspose2d(16, 64, 3), 144),
    ):
        w, bound = layer.weight.data, np.sqrt(6 / fan_in)
        assert np.abs(w).max() <= bound
        assert np.abs(w).max() > 0.98 * bound
        assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        assert not layer.bias.data.any()


def test_seeds():
    def weights(seed):
        return nn.Linear(5, 4, seed=seed).weight.data

    np.testing.assert_array_equal(weights(3), weights(3))
    np.testing.assert_array_equal(weights(None), weights(None))
    assert not np.array_equal(weights(3), weights(4))
    double = nn.Linear(5, 4, seed=3).astype(np.float64).weight.data
    np.testing.assert_array_equal(double.astype(np.float32), weights(3))


def test_open_sizes_are_taken_from_the_first_input():
    for layer, x_shape, weight_shape in (
        (nn.Conv2d(None, 4, 3), (1, 5, 5, 2), (4, 3, 3, 2)),
        (nn.Conv1d(None, 4, 3), (1, 5, 2), (4, 1, 3, 2)),
        (nn.ConvTranspose2d(None, 4, 3), (1, 5, 5, 2), (2, 3, 3, 4)),
        (nn.Linear(None, 4), (1, 5), (4, 5)),
        (nn.BatchNorm2d(None), (2, 5, 5, 3), (3,)),
    ):
        with pytest.raises(RuntimeError, match="is not known yet"):
            layer.parameters()
        with pytest.raises(RuntimeError, match="is not known yet"):
            layer.state_dict()
        layer.forward(np.ones(x_shape, np.float32))
        assert layer.weight.shape == weight_shape
        assert layer.state_dict()["weight"].shape == weight_shape


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 0, 3), ValueError, "Conv2d: out_channels must be at least 1"),
        (lambda: nn.Conv2d(3.0, 1, 3), TypeError, "Conv2d: in_channels must be an integer"),
        (lambda: nn.Conv2d(3, 4, 0), ValueError, "Conv2d: kernel_size must be at least 1"),
        (lambda: nn.Conv2d(3, 4, (1, 2, 3)), ValueError, "kernel_size must be an int or"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, "stride must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError, "padding must be at least 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, 'padding must be "same"'),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, r"groups \(2\) must divide"),
        (lambda: nn.Conv2d(3, 4, 3, bias=1), TypeError, "bias must be True or False"),
        (lambda: nn.Conv1d(3, 4, (3, 3)), TypeError, "Conv1d: kernel_size must be an integer"),
        (lambda: nn.Linear(3, -1), ValueError, "Linear: out_features must be at least 1"),
        (lambda: nn.Dropout(1.0), ValueError, r"Dropout: p must be at least 0 and below 1"),
        (lambda: nn.Dropout(float("nan")), ValueError, "Dropout: p must be"),
        (lambda: nn.BatchNorm2d(3, eps=0), ValueError, "BatchNorm2d: eps must be above 0"),
        (lambda: nn.BatchNorm2d(3, momentum=2), ValueError, r"momentum in \[0, 1\]"),
        (lambda: nn.MaxPool2d(0), ValueError, "MaxPool2d: kernel_size must be at least 1"),
        (lambda: nn.AvgPool2d(2, stride=0), ValueError, "AvgPool2d: stride must be at least 1"),
        (lambda: nn.TimePool("median"), ValueError, "TimePool: mode must be"),
        (lambda: nn.Upsample2d(0), ValueError, "Upsample2d: scale must be at least 1"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_from_config_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"type must be one of .*'Conv2d'.*got 'Conv9d'"):
        nn.from_config({"type": "Conv9d"})
    with pytest.raises(ValueError, match=r"Linear: .*unexpected keyword argument 'colour'"):
        nn.from_config({"type": "Linear", "in_features": 1, "out_features": 1, "colour": 2})
    with pytest.raises(ValueError, match="Sequential: layers must be a list"):
        nn.from_config({"type": "Sequential"})


def test_a_layer_of_ones_own():
    class Double(nn.Layer):
        def output_shape(self, input_shape):
            return input_shape

        def forward(self, x):
            self._keep()
            return 2 * self._input(x)

        def backward(self, dy, need_dx=True):
            self._kept()
            return 2 * dy if need_dx else None

    net = nn.Sequential(nn.Linear(3, 2), Double())
    check_gradients(net, np.ones((2, 3)), np.random.default_rng(0))
    assert repr(nn.from_config(net.config())[1]) == "Double()"
    with pytest.raises(TypeError, match="Linear is a layer of stapes"):
        type("Linear", (nn.Layer,), {})


class TestParameter:
    def test_assigned_data_is_copied(self):
        p = nn.Linear(2, 3).weight
        storage, value = p.data, np.ones((3, 2), np.float32)
        p.data = value
        assert p.data is storage
        value[:] = 5
        np.testing.assert_array_equal(p.data, 1)

    def test_another_dtype_is_taken(self):
        p = nn.Linear(2, 3).weight
        p.data = np.ones((3, 2))
        assert p.dtype == np.float64

    def test_wrong_data(self):
        p = nn.Linear(2, 3).weight
        with pytest.raises(ValueError, match=r"shape \(3, 2\), got \(2, 3\)"):
            p.data = np.ones((2, 3), np.float32)
        with pytest.raises(TypeError, match="float32 or float64, got int64"):
            p.data = np.ones((3, 2), np.int64)
        with pytest.raises(TypeError, match="must be a NumPy or CuPy array"):
            p.data = [[1, 2]] * 3

    def test_float64_network_by_assigning(self, rng):
        layer = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
        for p in layer.parameters():
            p.data = p.data.astype(np.float64)
        y = layer.forward(rng.standard_normal((2, 3, 3, 2)))
        assert y.dtype == np.float64
        assert layer[1].running_mean.dtype == np.float64


class TestDropout:
    def test_offsets_move_on_and_back(self):
        layer, x = nn.Dropout(0.5, seed=1), np.ones((3, 3), np.float32)
        first, second = layer.forward(x), layer.forward(x)
        assert layer.offset == 6
        assert not np.array_equal(first, second)
        layer.load_random_state({"offset": 3})
        np.testing.assert_array_equal(layer.forward(x), second)

    def test_off_in_eval(self):
        layer, x = nn.Dropout(0.5).eval(), np.ones((3, 3), np.float32)
        np.testing.assert_array_equal(layer.forward(x), x)
        assert layer.offset == 0

    def test_layers_of_a_network_draw_masks_of_their_own(self):
        x = np.ones((1, 400), np.float32)
        net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
        a, b = net[0].forward(x), net[1].forward(x)
        assert 100 < ((a > 0) == (b > 0)).sum() < 300
        other = nn.Sequential(nn.Dropout(0.5), seed=1)[0].forward(x)
        assert not np.array_equal(a, other)


def test_residual_must_keep_the_shape():
    block = nn.Sequential(nn.ReLU(), nn.Residual(nn.Conv2d(None, 4, 3)))
    message = r"layer 1 \(Residual\): the layers must keep the shape .*\(8, 8, 2\).*\(6, 6, 4\)"
    with pytest.raises(ValueError, match=message):
        block.build((8, 8, 2))


def test_time_pool_takes_clips_of_any_length(rng):
    layer = nn.TimePool("mean_max").eval()
    for frames in (1, 7, 400):
        x = rng.standard_normal((2, frames, 4, 3)).astype(np.float32)
        y = layer.forward(x)
        np.testing.assert_allclose(y[:, 0, :, :3], x.mean(axis=1), atol=1e-6)
        np.testing.assert_array_equal(y[:, 0, :, 3:], x.max(axis=1))


def test_flops():
    assert nn.Conv2d(3, 8, 3, padding=1).flops((10, 20, 3)) == 2 * 10 * 20 * 8 * 27
    assert nn.Conv2d(4, 8, 3, groups=4).flops((3, 3, 4)) == 2 * 8 * 9
    assert nn.Conv1d(3, 8, 5).flops((14, 3)) == 2 * 10 * 8 * 15
    assert nn.ConvTranspose2d(3, 8, 2, stride=2).flops((5, 5, 3)) == 2 * 25 * 3 * 4 * 8
    assert nn.Linear(10, 3).flops((10,)) == 60
    assert nn.ReLU().flops((10,)) == 0
