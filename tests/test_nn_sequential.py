"""Networks: names, seeds, states, gradients, errors, the summary; torch as oracle."""

import copy
import json

import numpy as np
import pytest

from gradients import check_gradients
from stapes import nn
from stapes.nn import convert


def small():
    return nn.Sequential(
        nn.Conv2d(None, 4, 3, padding="same"),
        nn.BatchNorm2d(None),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Residual(nn.Conv2d(None, 4, 3, padding=1), nn.ReLU()),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Sequential(nn.Linear(None, 6), nn.ReLU(), nn.Linear(None, 3)),
    )


NAMES = [
    "0.weight", "0.bias", "1.weight", "1.bias", "4.0.weight", "4.0.bias",
    "7.0.weight", "7.0.bias", "7.2.weight", "7.2.bias",
]  # fmt: skip
BUFFERS = ["1.running_mean", "1.running_var"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_container():
    net = small()
    assert len(net) == 8
    assert isinstance(net[1], nn.BatchNorm2d)
    assert net[-1] is net.layers[7]
    assert [type(layer).__name__ for layer in net][:2] == ["Conv2d", "BatchNorm2d"]
    assert repr(nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU())) == (
        "Sequential(Conv2d(in_channels=1, out_channels=2, kernel_size=3, padding='same'), ReLU())"
    )


def test_names():
    net = small()
    net.build((6, 6, 2))
    assert [p.name for p in net.parameters()] == NAMES
    assert list(net.buffers()) == BUFFERS
    assert sorted(net.state_dict()) == sorted(NAMES + BUFFERS)
    inner = net[7]
    assert [p.name for p in inner.parameters()] == NAMES[-4:]
    assert list(inner.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_names_follow_a_changed_list():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net.forward(np.ones((1, 2), np.float32))
    net.layers.insert(1, nn.ReLU())
    assert [p.name for p in net.parameters()][-1] == "2.bias"
    assert net.forward(np.ones((1, 2), np.float32)).shape == (1, 1)


def test_gradients(rng):
    check_gradients(small(), rng.standard_normal((3, 6, 6, 2)), rng)


def test_gradients_with_a_head_that_pools_time(rng):
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding="same"),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 3, 3, padding=1, groups=3),
        nn.BatchNorm2d(3),
        nn.TimePool("mean_max"),
        nn.Flatten(),
        nn.Linear(None, 4),
        nn.Softmax(),
    )
    check_gradients(net, rng.standard_normal((2, 7, 6, 1)), rng)


def test_every_grad_is_overwritten_in_place(rng):
    net = small()
    x = rng.standard_normal((2, 6, 6, 2)).astype(np.float32)
    dy = np.ones((2, 3), np.float32)
    net.forward(x)
    net.backward(dy)
    before = [p.grad for p in net.parameters()]
    for g in before:
        g[...] = np.nan
    net.forward(x)
    net.backward(dy)
    for p, g in zip(net.parameters(), before, strict=True):
        assert p.grad is g
        assert np.isfinite(g).all()


def test_need_dx_stops_above_layers_without_weights(rng):
    net = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(None, 2))
    x = rng.standard_normal((2, 3, 3, 1)).astype(np.float32)
    net.forward(x)
    assert net.backward(np.ones((2, 2), np.float32), need_dx=False) is None
    with pytest.raises(RuntimeError, match="once after each forward"):
        net.backward(np.ones((2, 2), np.float32), need_dx=False)
    plain = nn.Sequential(nn.ReLU(), nn.Flatten())
    plain.forward(x)
    assert plain.backward(np.ones((2, 9), np.float32), need_dx=False) is None


def test_empty():
    net, x = nn.Sequential(), np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(net.forward(x), x)
    np.testing.assert_array_equal(net.backward(x), x)
    assert net.backward(x, need_dx=False) is None
    assert net.parameters() == []


class TestSeeds:
    @staticmethod
    def weights(net):
        return {k: v for k, v in net.state_dict().items() if k.endswith("weight")}

    def build(self, seed):
        net = small()
        net.build((6, 6, 2), seed=seed)
        return self.weights(net)

    def test_same_seed_same_weights(self):
        a, b, c = self.build(5), self.build(5), self.build(6)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert not np.array_equal(a["0.weight"], c["0.weight"])

    def test_the_default_is_seed_0_whichever_way_it_is_built(self):
        by_forward = small()
        by_forward.forward(np.zeros((1, 6, 6, 2), np.float32))
        for name, w in self.build(0).items():
            np.testing.assert_array_equal(self.weights(by_forward)[name], w)

    def test_every_layer_has_a_stream_of_its_own(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)))
        a, b, c = self.weights(net).values()
        assert not np.array_equal(a, b)
        assert not np.array_equal(a, c)
        assert not np.array_equal(b, c)

    def test_an_own_seed_stays(self):
        net = nn.Sequential(nn.Linear(4, 4, seed=9), nn.Linear(4, 4))
        alone = nn.Linear(4, 4, seed=9).weight.data
        net.build((4,), seed=1)
        np.testing.assert_array_equal(net[0].weight.data, alone)

    def test_a_seed_draws_again_and_none_does_not(self):
        net = nn.Sequential(nn.Linear(4, 4))
        before = net[0].weight.data.copy()
        net.build((4,))
        np.testing.assert_array_equal(net[0].weight.data, before)
        net.build((4,), seed=1)
        assert not np.array_equal(net[0].weight.data, before)

    def test_a_refused_build_keeps_the_weights(self):
        net = nn.Sequential(nn.Linear(4, 4))
        before = net[0].weight.data.copy()
        with pytest.raises(ValueError, match="takes inputs of shape"):
            net.build((5,), seed=1)
        np.testing.assert_array_equal(net[0].weight.data, before)

    def test_dropout_resumes(self, rng):
        x = rng.standard_normal((2, 6, 6, 2)).astype(np.float32)
        net = small()
        net.forward(x)
        state, random_state = net.state_dict(), net.random_state()
        expected = net.forward(x)
        other = small()
        other.build((6, 6, 2))
        other.load_state_dict(state)
        other.load_random_state(random_state)
        np.testing.assert_array_equal(other.forward(x), expected)
        with pytest.raises(ValueError, match="load_random_state: names must be"):
            other.load_random_state({"0.offset": 1})


class TestBadSequences:
    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            (
                [nn.Conv2d(2, 4, 3), nn.Linear(64, 3)],
                r"layer 1 \(Linear\): takes inputs of shape \(64,\).*got \(4, 4, 4\).*Flatten",
            ),
            (
                [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(3, 4, 3)],
                r"layer 2 \(Conv2d\): takes inputs of shape \(H, W, 3\).*got \(4, 4, 4\)",
            ),
            (
                [nn.Flatten(), nn.Linear(71, 3)],
                r"layer 1 \(Linear\): takes inputs of shape \(71,\).*got \(72,\)",
            ),
            (
                [nn.Sequential(nn.Flatten(), nn.MaxPool2d(2))],
                r"layer 0\.1 \(MaxPool2d\): takes inputs of shape \(H, W, C\).*got \(72,\)",
            ),
            ([nn.MaxPool2d(2), nn.Conv2d(2, 1, 4)], r"layer 1 \(Conv2d\).*\(3, 3, 2\)"),
            ([nn.BatchNorm2d(3)], r"layer 0 \(BatchNorm2d\).*\(H, W, 3\).*\(6, 6, 2\)"),
        ],
    )
    def test_place_type_and_shapes_are_named(self, layers, message):
        net = nn.Sequential(*layers)
        with pytest.raises(ValueError, match=message):
            net.build((6, 6, 2))
        with pytest.raises(ValueError, match=message):
            net.forward(np.zeros((1, 6, 6, 2), np.float32))

    def test_no_layers(self):
        with pytest.raises(TypeError, match="is not a layer"):
            nn.Sequential(nn.ReLU(), "softmax")
        relu = nn.ReLU()
        with pytest.raises(ValueError, match="twice"):
            nn.Sequential(relu, nn.Sequential(relu))

    def test_input_that_is_no_array(self):
        with pytest.raises(TypeError, match="x must be a NumPy or CuPy array"):
            nn.Sequential(nn.ReLU()).forward([1, 2])


class TestState:
    @pytest.fixture
    def net(self):
        net = small()
        net.build((6, 6, 2), seed=1)
        return net

    def test_round_trip(self, net):
        other = small()
        other.build((6, 6, 2), seed=2)
        other.load_state_dict(net.state_dict())
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], value)

    def test_copies(self, net):
        net.state_dict()["0.weight"][...] = 0
        assert net[0].weight.data.any()

    def test_storage_stays(self, net):
        before = [p.data for p in net.parameters()]
        net.load_state_dict(net.state_dict())
        assert all(p.data is b for p, b in zip(net.parameters(), before, strict=True))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda d: d.pop("7.2.bias"), ValueError, "missing 7.2.bias"),
            (lambda d: d.update({"9.weight": d["0.bias"]}), ValueError, "unexpected 9.weight"),
            (
                lambda d: d.update({"1.running_var": np.ones(5, np.float32)}),
                ValueError,
                r"1\.running_var must have shape \(4,\), got \(5,\)",
            ),
            (lambda d: d.update({"1.bias": np.ones(4, np.int64)}), TypeError, "floating-point"),
            (lambda d: d.update({"1.bias": None}), TypeError, "1.bias must be a NumPy"),
        ],
    )
    def test_all_or_nothing(self, net, change, error, message):
        before = net.state_dict()
        state = {k: v + 1 for k, v in before.items()}
        change(state)
        with pytest.raises(error, match=message):
            net.load_state_dict(state)
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def test_all_problems_are_told_at_once(self, net):
        with pytest.raises(ValueError, match=r"missing .*1\.running_mean.*; unexpected colour"):
            net.load_state_dict({"colour": np.ones(1)})

    def test_other_dtypes_are_converted(self, net):
        net.load_state_dict({k: v.astype(np.float64) for k, v in net.state_dict().items()})
        assert all(v.dtype == np.float32 for v in net.state_dict().values())

    def test_config(self, net):
        config = json.loads(json.dumps(net.config()))
        other = nn.from_config(config)
        assert other.config() == net.config()
        assert other.build((6, 6, 2)) == (3,)
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], value)


def test_modes():
    net = small()
    assert net.training
    assert not any(layer.training for layer in net.eval())
    assert not net[7][0].training
    assert net.train()[7][0].training


def test_dtype_and_device(rng):
    net = small()
    net.build((6, 6, 2))
    single = net.state_dict()
    assert net.astype(np.float64) is net
    assert all(v.dtype == np.float64 for v in net.state_dict().values())
    np.testing.assert_array_equal(net.state_dict()["0.weight"], single["0.weight"])
    assert net.eval().forward(rng.standard_normal((1, 6, 6, 2))).dtype == np.float64
    assert net.to("cpu") is net
    with pytest.raises(TypeError, match="float32 or float64, not float16"):
        net.astype(np.float16)
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:N"'):
        net.to("gpu")
    before_building = small().astype(np.float64)
    assert before_building.forward(rng.standard_normal((1, 6, 6, 2))).dtype == np.float64


def test_summary(capsys):
    net = small()
    with pytest.raises(RuntimeError, match="the input's shape is not known"):
        net.summary()
    net.build((6, 6, 2))
    text = net.summary()
    assert capsys.readouterr().out == text + "\n"
    lines = text.splitlines()
    row = {line.split()[0]: line.split() for line in lines}
    assert row["0"][1:] == ["Conv2d", "6", "x", "6", "x", "4", "76", "0.005"]
    assert row["4.0"][1] == "Conv2d"
    total = sum(p.size for p in net.parameters())
    assert f"{total}" in next(line for line in lines if line.startswith("total"))
    assert lines[-1].startswith("and 8 values")


def test_deepcopy(rng):
    net = small()
    x = rng.standard_normal((1, 6, 6, 2)).astype(np.float32)
    net.forward(x)
    other = copy.deepcopy(net)
    other[0].weight.data[...] = 0
    assert net[0].weight.data.any()


class TestTorch:
    """Networks with batch norm and a residual block, step by step beside torch's."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def pair(self, torch):
        class Residual(torch.nn.Sequential):
            def forward(self, x):
                return x + super().forward(x)

        t = torch.nn
        theirs = t.Sequential(
            t.Conv2d(2, 4, 3, padding=1),
            t.BatchNorm2d(4),
            t.ReLU(),
            t.MaxPool2d(2),
            Residual(t.Conv2d(4, 4, 3, padding=1), t.BatchNorm2d(4), t.ReLU()),
            t.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
            t.Upsample(scale_factor=2),
            t.AvgPool2d(2),
            t.Flatten(),
            t.Linear(108, 5),
        ).double()
        ours = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Residual(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
            nn.Upsample2d(2),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(108, 5),
        ).astype(np.float64)
        ours.load_state_dict(self.converted(theirs))
        return ours, theirs

    @staticmethod
    def converted(theirs, gradients=False):
        if gradients:
            state = {n: p.grad for n, p in theirs.named_parameters()}
        else:
            state = theirs.state_dict()
        state = {k: v.detach().numpy() for k, v in state.items()}
        state = {k: convert.conv_weight(v) if v.ndim == 4 else v for k, v in state.items()}
        return {k: convert.flatten_columns(v, (3, 6, 6)) if v.ndim == 2 else v
                for k, v in state.items()}  # fmt: skip

    def test_forward_backward_and_running_values(self, torch, rng):
        ours, theirs = self.pair(torch)
        for _ in range(2):
            x, dy = rng.standard_normal((3, 6, 6, 2)), rng.standard_normal((3, 5))
            x_theirs = torch.tensor(convert.nchw(x), requires_grad=True)
            y = theirs(x_theirs)
            theirs.zero_grad()
            y.backward(torch.tensor(dy))
            np.testing.assert_allclose(ours.forward(x), y.detach().numpy(), rtol=1e-10, atol=1e-12)
            dx = ours.backward(dy)
            np.testing.assert_allclose(convert.nchw(dx), x_theirs.grad.numpy(), atol=1e-11)
            gradients = self.converted(theirs, gradients=True)
            for p in ours.parameters():
                np.testing.assert_allclose(p.grad, gradients[p.name], atol=1e-10)
        state = self.converted(theirs)
        for name, value in ours.state_dict().items():
            np.testing.assert_allclose(value, state[name], rtol=1e-12)
        x = rng.standard_normal((3, 6, 6, 2))
        y = theirs.eval()(torch.tensor(convert.nchw(x))).detach().numpy()
        np.testing.assert_allclose(ours.eval().forward(x), y, rtol=1e-10, atol=1e-12)

    def test_conv1d(self, torch, rng):
        theirs = torch.nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2).double()
        ours = nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2).astype(np.float64)
        ours.weight.data = convert.conv_weight(theirs.weight.detach().numpy())
        ours.bias.data = theirs.bias.detach().numpy()
        x = rng.standard_normal((2, 9, 4))
        y = theirs(torch.tensor(x.transpose(0, 2, 1).copy())).detach().numpy()
        np.testing.assert_allclose(ours.forward(x), y.transpose(0, 2, 1), atol=1e-12)

    def test_torch_takes_our_names(self, torch):
        ours, theirs = self.pair(torch)
        state = {}
        for name, value in ours.state_dict().items():
            if value.ndim == 4:
                value = convert.conv_weight_to_torch(value)
            elif value.ndim == 2:
                value = convert.flatten_columns_to_torch(value, (6, 6, 3))
            state[name] = torch.from_numpy(value)
        theirs.load_state_dict(state)


class TestConvert:
    def test_round_trips(self, rng):
        w = rng.standard_normal((4, 3, 2, 5))
        np.testing.assert_array_equal(convert.conv_weight_to_torch(convert.conv_weight(w)), w)
        np.testing.assert_array_equal(convert.nchw(convert.nhwc(w)), w)
        d = rng.standard_normal((7, 24))
        there = convert.flatten_columns(d, (2, 3, 4))
        np.testing.assert_array_equal(convert.flatten_columns_to_torch(there, (3, 4, 2)), d)

    def test_flatten_columns(self, rng):
        w, x = rng.standard_normal((7, 24)), rng.standard_normal((2, 3, 4))
        hwc = x.transpose(1, 2, 0).reshape(-1)
        ours = convert.flatten_columns(w, (2, 3, 4)) @ hwc
        np.testing.assert_allclose(ours, w @ x.reshape(-1))

    def test_keras(self, rng):
        w = rng.standard_normal((3, 2, 4, 5))  # R, S, C, K
        k = convert.conv_weight_from_keras(w)
        assert k.shape == (5, 3, 2, 4)
        assert k[4, 1, 0, 2] == w[1, 0, 2, 4]
        d = convert.depthwise_weight_from_keras(w)
        assert d.shape == (20, 3, 2, 1)
        assert d[2 * 5 + 3, 1, 0, 0] == w[1, 0, 2, 3]
        assert convert.dense_weight_from_keras(w[0, 0]).shape == (5, 4)

    def test_errors(self):
        with pytest.raises(ValueError, match="conv_weight: the array must have 4 axes"):
            convert.conv_weight(np.ones((2, 2)))
        with pytest.raises(ValueError, match=r"flatten_columns: w must have shape \(out, 24\)"):
            convert.flatten_columns(np.ones((2, 23)), (2, 3, 4))
