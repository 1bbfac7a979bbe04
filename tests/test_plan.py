from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest

import stapes
from chains import BWD, FWD
from devices import places
from networks import chained, dense, images, mixed, seed_like
from stapes import nn
from stapes.optim import SGD
from stapes.train.memory import step_memory
from stapes.train.plan import Plan


def stages(*layers, fuse=True, **options):
    plan = Plan(nn.Sequential(*layers), fuse=fuse, **{"probabilities": False, **options})
    return [type(stage).__name__ for stage in plan.stages]


def conv(**kwargs):
    return nn.Conv2d(None, 4, 3, **kwargs)


def test_what_is_fused():
    assert stages(conv(), nn.ReLU(), nn.MaxPool2d(2)) == ["RectifiedPooled"]
    assert stages(conv(stride=2, padding=1), nn.ReLU(), nn.MaxPool2d((2, 3))) == ["RectifiedPooled"]
    assert stages(conv(), nn.ReLU()) == ["Rectified"]
    assert stages(nn.Linear(None, 2), nn.ReLU(), nn.Linear(None, 2)) == ["Rectified", "Linear"]
    assert stages(nn.Sequential(conv(), nn.ReLU()), nn.MaxPool2d(2)) == ["RectifiedPooled"]
    norm = nn.BatchNorm2d(4)
    assert stages(conv(), norm, nn.ReLU(), conv()) == ["Conv2d", "NormalisedConvs"]
    assert stages(norm, nn.ReLU(), conv(), nn.ReLU()) == ["Normalised", "Rectified"]
    assert stages(norm, nn.ReLU(), conv(), nn.BatchNorm2d(4)) == ["NormalisedConvs", "BatchNorm2d"]
    assert stages(norm, nn.ReLU(), nn.GlobalAvgPool2d(), conv()) == ["NormalisedMean", "Conv2d"]
    assert stages(norm, nn.ReLU(), nn.Conv1d(4, 4, 3)) == ["Normalised", "Conv1d"]
    assert stages(norm, nn.ReLU(), nn.MaxPool2d((1, 2))) == ["Normalised"]
    assert stages(norm, nn.ReLU(), nn.MaxPool2d(3, 2)) == ["Normalised", "MaxPool2d"]
    assert stages(norm, nn.MaxPool2d(2), nn.ReLU()) == ["BatchNorm2d", "MaxPool2d", "ReLU"]
    assert stages(conv(), nn.ReLU(), nn.MaxPool2d(2), fuse=False) == ["Conv2d", "ReLU", "MaxPool2d"]


def test_normalised_convolutions_in_a_row_are_one_stage_on_the_cpu():
    def on_cpu(*layers, **options):
        return stages(*map(deepcopy, layers), on_cpu=True, **options)

    norm, relu = nn.BatchNorm2d(4), nn.ReLU()
    block, one = (norm, relu, conv()), "NormalisedConvs"
    assert stages(*map(deepcopy, block * 2)) == [one, one]
    assert on_cpu(*block * 2) == [one]
    assert on_cpu(*block * 3, norm, relu, nn.Linear(None, 2)) == [one, "Normalised", "Linear"]
    assert on_cpu(conv(), *block * 2, relu) == ["Conv2d", one, "Normalised", "Rectified"]
    assert on_cpu(*block, nn.Dropout(), *block * 2) == [one, "Dropout", one]
    assert on_cpu(*block, relu, *block) == ["Normalised", "Rectified", one]
    assert on_cpu(*block * 2, fuse=False) == ["BatchNorm2d", "ReLU", "Conv2d"] * 2
    model = chained()
    model.compile(device="cpu")
    (chain,) = (s for s in model._compiled.plan.stages if type(s).__name__ == one)
    assert len(chain.blocks) == 4


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_both_ways_of_normalised_convolutions_multiply_alike(precision, monkeypatch):
    """The CPU has one precision: the one that operators are asked for is noted, and not passed."""
    asked = []

    def noting(operator):
        def call(*args, precision="fp32", **kwargs):
            asked.append(precision)
            return operator(*args, **kwargs)

        return call

    for name in (FWD, BWD):
        monkeypatch.setattr(stapes.ops, name, noting(getattr(stapes.ops, name)))
    plan = Plan(chained(), fuse=True, probabilities=False, on_cpu=True)
    plan.model.build((9, 10, 1), seed=0)
    for layer in plan.layers:
        layer._precision = precision
    (chain,) = (stage for stage in plan.stages if type(stage).__name__ == "NormalisedConvs")
    chain.backward(chain.forward(np.ones((2, 9, 10, 16), np.float32)))
    assert asked == [precision] * 2


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("precision", "rtol"), [("fp32", 1e-4), ("fp64", 1e-12)])
def test_the_first_block_on_the_cpu(channels, precision, rtol):
    """It learns as layer by layer, whether its kernels are the faster ones or not."""
    x, y = images(20, shape=(9, 10, channels))
    models = []
    for fuse in (True, False):
        layers = [nn.Conv2d(None, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(None, 3)]
        models.append(nn.Sequential(*layers, seed=1))
        models[-1].compile(SGD(0.01), fuse=fuse, precision=precision, device="cpu")
        models[-1].fit(x, y, epochs=3, batch_size=8, progress=False)
    assert type(models[0]._compiled.plan.stages[0]).__name__ == "FirstBlock"
    fused, plain = (m.state_dict() for m in models)
    for name, value in plain.items():
        # A bias before BatchNorm2d has no gradient but rounding.
        error = np.linalg.norm(fused[name] - value) / max(np.linalg.norm(value), 1e-3)
        assert error < rtol, name
    np.testing.assert_allclose(models[0].predict(x), models[1].predict(x), rtol=10 * rtol)


def test_what_the_first_block_is_not():
    norm, relu, pool = nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    for first, last in (
        (conv(stride=2), pool),
        (nn.Conv2d(1, 4, 5), pool),
        (conv(), nn.MaxPool2d(3)),
    ):
        assert stages(first, norm, relu, last, on_cpu=True) == ["Conv2d", "Normalised"]
    assert stages(conv(), norm, relu, pool) == ["Conv2d", "Normalised"]


@pytest.mark.parametrize(
    ("first", "pool"),
    [
        (conv(dilation=2), nn.MaxPool2d(2)),
        (nn.Conv2d(4, 4, 3, groups=2), nn.MaxPool2d(2)),
        (conv(), nn.MaxPool2d(2, stride=1)),
        (conv(), nn.MaxPool2d(2, padding=1)),
        (conv(), nn.MaxPool2d(16)),
        (conv(), nn.AvgPool2d(2)),
    ],
)
def test_what_the_fused_kernel_does_not_do(first, pool):
    assert stages(first, nn.ReLU(), pool) == ["Rectified", type(pool).__name__]


def test_what_is_folded_for_inference():
    norm, infer = nn.BatchNorm2d(4), {"inference": True}
    assert stages(conv(), norm, **infer) == ["Folded"]
    assert stages(conv(), norm, nn.ReLU(), conv(), **infer) == ["Folded", "Conv2d"]
    assert stages(conv(), norm, nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4), **infer) == [
        *("Folded", "BatchNorm2d"),
    ]
    assert stages(conv(), norm, nn.ReLU(), nn.MaxPool2d(3, 2), **infer) == ["Folded", "MaxPool2d"]
    assert stages(conv(), nn.ReLU(), norm, **infer) == ["Rectified", "BatchNorm2d"]
    assert stages(norm, nn.ReLU(), conv(), nn.BatchNorm2d(4), **infer) == ["Normalised", "Folded"]
    assert stages(nn.Conv1d(None, 4, 3), norm, **infer) == ["Conv1d", "BatchNorm2d"]
    assert stages(conv(), norm, fuse=False, **infer) == ["Conv2d", "BatchNorm2d"]


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("tail", [[], [nn.ReLU()], [nn.ReLU(), nn.MaxPool2d(2)]], ids=len)
def test_folded_prediction_equals_layer_by_layer(tail, groups, bias, precision):
    x, y = images(20)
    layers = [nn.Conv2d(None, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=groups, bias=bias)]
    layers += [nn.BatchNorm2d(8), *map(deepcopy, tail), nn.Flatten(), nn.Linear(None, 3)]
    model = nn.Sequential(*layers, seed=2)
    model.compile("sgd", "mse", precision=precision)
    targets = np.eye(3)[y].astype(model.dtype)
    before = model.predict(x)
    for _ in range(3):  # running values move, weights too
        model.train_on_batch(x, targets)
        model.eval()
        want = model.forward(x.astype(model.dtype))
        model.train()
        got = model.predict(x)
        rtol = 1e-4 if precision == "fp32" else 1e-11
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)
        assert np.abs(got - before).max() > 1e-3
        before = got


def test_a_final_softmax_is_left_out_where_probabilities_are_asked_for():
    assert stages(nn.Linear(None, 2), nn.Softmax(), probabilities=True) == ["Linear"]
    assert stages(nn.Linear(None, 2), nn.Softmax()) == ["Linear", "Softmax"]


@pytest.mark.parametrize("make", [seed_like, mixed, chained])
@pytest.mark.parametrize(("precision", "rtol"), [("fp32", 1e-4), ("fp64", 1e-12)])
def test_fused_training_equals_layer_by_layer(make, precision, rtol):
    x, y = images()
    models = [make(), make()]
    for fuse, model in zip((True, False), models, strict=True):
        model.compile(SGD(0.05, momentum=0.9), fuse=fuse, precision=precision)
        model.fit(x, y, epochs=3, batch_size=16, progress=False)
    fused, plain = (m.state_dict() for m in models)
    for name, value in plain.items():
        assert value.dtype == {"fp32": np.float32, "fp64": np.float64}[precision]
        # A bias before BatchNorm2d has no gradient but rounding.
        error = np.linalg.norm(fused[name] - value) / max(np.linalg.norm(value), 1e-3)
        assert error < rtol, name
    np.testing.assert_allclose(models[0].predict(x), models[1].predict(x), rtol=10 * rtol)
    for a, b in zip(
        models[0].history.history["loss"], models[1].history.history["loss"], strict=True
    ):
        assert a == pytest.approx(b, rel=rtol)


def test_the_plan_gives_the_gradients_of_the_plain_network():
    x, y = images(8)
    model = seed_like()
    model.compile(SGD(0.0))
    model.train_on_batch(x, y)
    planned = [p.grad.copy() for p in model.parameters()]
    loss = nn.CrossEntropyLoss()
    model.train().backward(loss(model.forward(x), y)[1], need_dx=False)
    for p, grad in zip(model.parameters(), planned, strict=True):
        np.testing.assert_allclose(p.grad, grad, rtol=1e-4, atol=1e-6)


def arrays_of(model):
    """Every buffer of the plan, by input shape, layer and slot."""
    found = {}
    for shape, layers in model._compiled.plan._kept.items():
        for i, slots in enumerate(layers.slots):
            for slot, value in slots.items():
                for place, array in places(value):
                    found[shape, i, slot, *place] = array.ctypes.data
    return found


@pytest.mark.parametrize("make", [seed_like, mixed, chained])
def test_buffers_are_used_again(make):
    x, y = images(40)
    model = make()
    model.compile("sgd")
    model.fit(x, y, batch_size=16, validation_data=(x, y), progress=False)
    before = arrays_of(model)
    grads = [p.grad.ctypes.data for p in model.parameters()]
    assert {shape[0] for shape, *_ in before} == {16, 8}
    assert len(before) > 2 * len(model._compiled.plan.stages)
    model.fit(x, y, batch_size=16, epochs=3, validation_data=(x, y), progress=False)
    assert arrays_of(model) == before
    assert [p.grad.ctypes.data for p in model.parameters()] == grads


def test_gradients_take_turns_in_two_arrays():
    x, y = images(16)
    model = mixed()
    model.compile("sgd", metrics=[])
    model.predict_on_batch(x)  # a forward pass alone settles nothing
    model.train_on_batch(x, y)
    plan = model._compiled.plan
    (buffers,) = plan._kept.values()
    slots = dict(zip(plan.buffered, buffers.slots, strict=True))
    passed = [slots[stage]["dx"] for stage in reversed(plan.stages) if "dx" in slots[stage]]
    assert len(passed) > 4
    for before, after in pairwise(passed):
        assert not np.shares_memory(before, after)
    for one, other in zip(passed, passed[2:], strict=False):
        assert one.ctypes.data == other.ctypes.data


def test_a_backward_pass_that_fails_leaves_the_next_one_right():
    x, y = images(16)
    block = (conv(padding="same"), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2))
    models = [nn.Sequential(*map(deepcopy, block), nn.Flatten(), dense(3)) for _ in range(2)]
    for model in models:
        model.build(x.shape[1:], seed=0)
        model.compile("sgd", metrics=[])
    stage = models[0]._compiled.plan.stages[2]
    stage.backward = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        models[0].train_on_batch(x, y)
    del stage.backward
    for _ in range(3):
        losses = [model.train_on_batch(x, y)["loss"] for model in models]
        assert losses[0] == losses[1]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_results_do_not_change_under_the_users_hands(loss):
    x, y = images(16)
    model = seed_like()
    model.compile(loss=loss)
    targets = y if loss == "cross_entropy" else np.eye(3, dtype=np.float32)[y]
    kept = [model.predict(x), model.predict_on_batch(x), model.extract(x, 0), model.extract(x, 6)]
    kept += [p.data.copy() for p in model.parameters()]
    copies = [array.copy() for array in kept]
    model.train_on_batch(x + 1, targets)
    model.predict_on_batch(x * 2)
    model.extract(x * 3, 6)
    model.evaluate(x * 3, targets)
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    x_before = x.copy()
    model.fit(x, targets, epochs=2, progress=False)
    np.testing.assert_array_equal(x, x_before)


def test_a_plain_forward_owns_its_result_after_compile():
    x, y = images(8)
    model = seed_like()
    model.compile()
    model.train_on_batch(x, y)
    first = model.eval().forward(x)
    copy = first.copy()
    model.forward(x + 1)
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(first, copy)


def test_any_batch_and_input_shape_after_compile():
    model = mixed()
    model.compile()
    for samples, shape in ((5, (9, 10, 1)), (1, (9, 10, 1)), (7, (20, 6, 1)), (5, (9, 10, 1))):
        x, y = images(samples, shape=shape)
        assert np.isfinite(model.train_on_batch(x, y)["loss"])
        assert model.predict(x).shape == (samples, 3)
    for height in range(8, 30):
        model.predict(images(2, shape=(height, 10, 1))[0])
    assert len(model._compiled.plan._kept) <= 8


def test_layers_changed_after_compile_ask_for_it_again():
    x, y = images(8)
    model = seed_like()
    model.compile()
    model.train_on_batch(x, y)
    last = model.layers.pop()
    for verb in (lambda: model.train_on_batch(x, y), lambda: model.predict(x)):
        with pytest.raises(RuntimeError, match=r"call compile\(\) again"):
            verb()
    model.layers.append(last)
    model.train_on_batch(x, y)
    model.layers[-1] = nn.Linear(None, 3)
    with pytest.raises(RuntimeError, match=r"call compile\(\) again"):
        model.evaluate(x, y)
    model.compile()
    model.train_on_batch(x, y)


def test_load_state_dict_train_and_eval_work_after_compile():
    x, y = images(16)
    model = mixed()
    model.compile("sgd")
    model.train_on_batch(x, y)
    state, before = model.state_dict(), model.predict(x)
    model.train_on_batch(x, y)
    assert not np.array_equal(model.predict(x), before)
    model.load_state_dict(state)
    np.testing.assert_array_equal(model.predict(x), before)
    model.eval()
    assert not model.training
    model.train_on_batch(x, y)
    assert not any(layer.training for layer in model._walk())
    model.train()
    model.evaluate(x, y)
    assert all(layer.training for layer in model._walk())


@pytest.mark.parametrize("make", [seed_like, chained])
def test_the_same_bits_for_any_number_of_threads(make, threads):
    x, y = images(40)
    states = []
    for count in (1, 2, 3):
        threads(count)
        model = make()
        model.compile()
        model.fit(x, y, epochs=2, batch_size=16, progress=False)
        states.append(b"".join(value.tobytes() for value in model.state_dict().values()))
    assert stapes.num_threads() == 3
    assert states[0] == states[1] == states[2]


def test_empty_and_single_batches():
    model = dense()
    model.compile()
    x, y = np.ones((3, 5), np.float32), np.zeros(3, np.int64)
    model.train_on_batch(x, y)
    assert model.predict(x[:0]).shape == (0, 2)
    assert model.predict_on_batch(x[:1]).shape == (1, 2)


@pytest.mark.parametrize("make", [seed_like, mixed, chained])
def test_summary_tells_the_memory_of_a_step(make, capsys):
    x, y = images(20)
    model = make()
    model.build(x.shape[1:])
    assert "training step" not in model.summary()
    model.compile("adam", metrics=[])
    before = {k: v.copy() for k, v in model.state_dict().items()}
    told = model.summary(batch_size=20)
    assert capsys.readouterr().out.endswith(told + "\n")
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())

    needs = step_memory(model, model._compiled, x.shape[1:], 20)
    for _ in range(2):
        model.train_on_batch(x, y)
    (buffers,) = model._compiled.plan._kept.values()
    arrays = [a for slots in buffers.slots for _, a in places(list(slots.values()))]
    owners = [a if a.base is None else a.base for a in arrays]
    assert needs.buffers == x.nbytes + sum({id(a): a.nbytes for a in owners}.values())
    trained = sum(p.data.nbytes for p in model.parameters())
    assert needs.weights == 4 * trained + sum(b.nbytes for b in model.buffers().values())
    assert f"a training step of 20 samples: {needs.total / 2**20:,.1f} MiB (" in told
    with pytest.raises(ValueError, match="batch_size"):
        model.summary(batch_size=0)
    model.layers.append(nn.Softmax())
    assert "training step" not in model.summary()


def test_stages_take_no_name_from_users():
    class FirstBlock(nn.Layer):
        pass

    assert nn.Layer._types.pop("FirstBlock") is FirstBlock
