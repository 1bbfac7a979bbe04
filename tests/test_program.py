"""Programs: operators recorded once and done again without Python; training steps as programs."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from copy import deepcopy

import numpy as np
import pytest

from networks import assert_same_state, images, mixed, seed_like
from stapes import _core, nn, ops
from stapes.optim import SGD, Adam
from stapes.train import HostRuntime
from stapes.train.cpu import CpuRuntime
from stapes.train.plan import SHAPES_KEPT


def test_a_replay_does_the_calls_again():
    x, y, z = np.array([-1.0, 2.0]), np.empty(2), np.empty(2)

    def work():
        ops.relu_fwd(x, out=y)
        ops.relu_fwd(ops.cast(y, np.float64), out=z)

    program = _core.record(work)
    assert z.tolist() == [0, 2], "recording does the work too"
    x[:] = 3, -4
    z.fill(np.nan)
    _core.replay(program)
    assert (y.tolist(), z.tolist()) == ([3, 0], [3, 0])


def test_a_program_keeps_its_arrays():
    source = np.array([-1.0, 5.0])
    results = []

    def work():
        between = ops.relu_fwd(source)  # nobody else keeps this one
        results.append(weakref.ref(between))
        ops.relu_fwd(between, out=target)

    target = np.zeros(2)
    program = _core.record(work)
    gc.collect()
    assert results[0]() is not None
    target.fill(0)
    _core.replay(program)
    assert target.tolist() == [0, 5]
    del program
    gc.collect()
    assert results[0]() is None


def test_functions_of_python_are_noted():
    x, y = np.array([1.0, 2.0]), np.zeros(2)

    def work():
        np.add(x, x, out=y)
        _core.note(np.add, (x, x), {"out": y})
        ops.relu_fwd(y, out=y)

    program = _core.record(work)
    x *= -10
    _core.replay(program)
    assert y.tolist() == [0, 0]
    _core.note(np.add, (x, x), {"out": y})  # nothing is being recorded: not called
    assert y.tolist() == [0, 0]


def test_other_threads_are_not_recorded():
    x, y, other = np.ones(1), np.zeros(1), np.zeros(1)

    def work():
        thread = threading.Thread(target=ops.relu_fwd, args=(x,), kwargs={"out": other})
        thread.start()
        thread.join()
        ops.relu_fwd(x, out=y)

    program = _core.record(work)
    other.fill(7)
    y.fill(7)
    _core.replay(program)
    assert (y[0], other[0]) == (1, 7)


def test_errors_come_through():
    logits, target = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    program = _core.record(lambda: ops.cross_entropy_fwd(logits, target))
    target[1] = 3
    with pytest.raises(ValueError, match=r"cross_entropy_fwd: .*3"):
        _core.replay(program)

    def fails():
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        _core.record(fails)
    y = np.zeros(1)
    ops.relu_fwd(np.ones(1), out=y)  # nothing is being recorded any more
    with pytest.raises(TypeError, match="record"):
        _core.replay(np.zeros(1).__array_struct__)


class OwnReLU(nn.ReLU):
    pass


class OwnTimePool(nn.TimePool):
    pass


class OwnSGD(SGD):
    pass


def own_loss(output, target):
    return nn.CrossEntropyLoss()(output, target)


@pytest.mark.parametrize("make", [seed_like, mixed])
def test_steps_of_known_layers_are_recorded(make):
    model = make()
    model.compile("adam")
    assert isinstance(model._compiled.runtime, CpuRuntime)


@pytest.mark.parametrize(
    "arguments",
    [{"loss": own_loss, "metrics": []}, {"optimizer": OwnSGD(0.1)}, {"layer": OwnReLU()}],
    ids=["loss", "optimizer", "layer"],
)
def test_what_others_wrote_is_called(arguments):
    """The same steps, called one by one, where something could do more than call operators."""
    x, y = images(24)
    found = []
    for extra in ({}, arguments):
        extra = dict(extra)
        layer = extra.pop("layer", nn.ReLU())
        model = nn.Sequential(
            nn.Conv2d(None, 8, 3), layer, nn.Flatten(), nn.Linear(None, 3), seed=4
        )
        model.compile(**{"optimizer": SGD(0.1), "metrics": [], **extra})
        assert (model._compiled.runtime is None) == (extra != {} or type(layer) is OwnReLU)
        found.append(([model.train_on_batch(x, y)["loss"] for _ in range(5)], model))
    assert found[0][0] == found[1][0]
    assert_same_state(found[0][1], found[1][1])


BUILT_IN = [kind for kind in nn.Layer._types.values() if kind.__module__.startswith("stapes.nn.")]
SAMPLES = {
    nn.Conv1d: [nn.Conv1d(None, 4, 3)],
    nn.Conv2d: [nn.Conv2d(None, 4, 3)],
    nn.ConvTranspose2d: [nn.ConvTranspose2d(None, 4, 3)],
    nn.Dropout: [nn.Dropout(0.3)],
    nn.Linear: [nn.Flatten(), nn.Linear(None, 5)],
    nn.BatchNorm2d: [nn.BatchNorm2d(None)],
    nn.AvgPool2d: [nn.AvgPool2d(2)],
    nn.MaxPool2d: [nn.MaxPool2d(2)],
    nn.Upsample2d: [nn.Upsample2d(2)],
    nn.Residual: [nn.Residual(nn.ReLU())],
    nn.Sequential: [nn.Sequential(nn.ReLU())],
    **{kind: [kind()] for kind in (nn.Flatten, nn.GlobalAvgPool2d, nn.ReLU, nn.Softmax)},
    nn.TimePool: [nn.TimePool("mean_max")],
}


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
def test_every_layer_can_be_recorded(kind):
    """A new layer needs a sample here: one whose work cannot be recorded would train wrongly."""
    x, y = images(16)
    if kind is nn.Conv1d:
        x = x[:, :, 0]
    first = nn.Conv1d(None, 3, 3) if kind is nn.Conv1d else nn.Conv2d(None, 3, 3)
    layers = [first, *SAMPLES[kind]]
    layers += [] if kind is nn.GlobalAvgPool2d else [nn.Flatten()]
    found = []
    for where in ("cpu", HostRuntime()):
        model = deepcopy(nn.Sequential(*layers, nn.Linear(None, 3), seed=1))
        model.compile(Adam(0.01), metrics=[], device=where)
        assert isinstance(model._compiled.runtime, CpuRuntime if where == "cpu" else HostRuntime)
        losses = [model.train_on_batch(np.roll(x, i, 0), y)["loss"] for i in range(6)]
        found.append((losses, [model.predict(x[i : i + 4]) for i in range(4)]))
    assert found[0][0] == found[1][0]
    assert len(set(found[0][0])) == 6
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("copied", [deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_recorded_network_can_be_copied(copied):
    x, y = images(16)
    model = mixed()
    model.compile("adam")
    for _ in range(3):
        model.train_on_batch(x, y)
        model.predict(x)
    other = copied(model)
    for _ in range(3):
        assert other.train_on_batch(x, y) == model.train_on_batch(x, y)
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
    model.train_on_batch(x, y)
    assert np.abs(other.predict(x) - model.predict(x)).max() > 0


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "int32", "int64", "uint8"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "ids"])
def test_every_step_sees_its_own_targets(loss, dtype, precision):
    x, _ = images(4)
    ids = np.arange(5) % 3
    found = []
    for where in ("cpu", HostRuntime()):
        model = seed_like()
        kind = "cross_entropy" if loss == "ids" else loss
        model.compile(SGD(0.01), kind, metrics=[], device=where, precision=precision)
        losses = []
        for i in ids:
            y = np.full(4, i) if loss == "ids" else np.tile(np.eye(3)[i], (4, 1))
            if loss == "ids" and dtype in ("float32", "float64", "bool"):
                pytest.skip("ids are integers")
            y = y.astype(dtype)
            losses += [model.train_on_batch(x, y)["loss"], model.evaluate(x, y)["loss"]]
        found.append(losses)
    assert found[0] == found[1]
    assert len(set(found[0])) == len(found[0])


def test_a_method_put_into_an_instance_is_called():
    x, y = images(16)
    seen = []
    relu = nn.ReLU()
    original = relu.forward
    relu.forward = lambda x: seen.append(len(x)) or original(x)
    model = nn.Sequential(
        nn.Conv2d(None, 4, 3), relu, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(None, 3)
    )
    model.compile("sgd", fuse=False)
    for _ in range(4):
        model.train_on_batch(x, y)
    assert seen == [16] * 4


def test_a_step_that_failed_leaves_no_old_numbers():
    """The first step of another shape is broken off; then settings change."""
    x, y = images(16)
    found = []
    for where in ("cpu", HostRuntime()):
        model = mixed()
        model.compile(Adam(0.01), metrics=[], device=where)
        losses = [model.train_on_batch(x[:6], y[:6])["loss"] for _ in range(3)]
        plan = model._compiled.plan
        plan.forward = None  # not callable
        with pytest.raises(TypeError):
            model.train_on_batch(x[:5], y[:5])
        del plan.forward
        model.layers[0].layers[1].momentum = 0.9
        model.optimizer.weight_decay = 0.5
        losses += [model.train_on_batch(x[:6], y[:6])["loss"] for _ in range(3)]
        found.append((losses, model))
    assert found[0][0] == found[1][0]
    assert_same_state(found[0][1], found[1][1])


def test_large_losses_do_not_stop_training():
    """Their sum is not finite in float32, they are."""
    x = np.full((4, 1), 1e18, np.float32)
    model = nn.Sequential(nn.Linear(1, 1), seed=3)
    model.compile(SGD(1e-38), "mse", metrics=[])
    y = np.full((4, 1), -1e19, np.float32)
    losses = [model.train_on_batch(x, y)["loss"] for _ in range(8)]
    assert np.isfinite(losses).all()
    assert np.sum(losses, dtype=np.float64) > np.finfo(np.float32).max
    model.optimizer.lr = 0.1
    before = model.layers[0].weight.data.copy()
    model.train_on_batch(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))
    assert not np.array_equal(before, model.layers[0].weight.data)


def test_programs_are_kept_for_a_few_shapes():
    model = seed_like()
    model.compile("sgd")
    x, y = images(20)
    for n in range(1, 20):
        model.train_on_batch(x[:n], y[:n])
        model.evaluate(x[:n], y[:n])
    kinds = [key[0] for key in model._compiled.step._shapes]
    assert kinds.count("compute") == kinds.count("compute_loss") == SHAPES_KEPT


def test_recorded_predictions_see_new_weights_and_inputs():
    x, y = images(24)
    model, plain = mixed(), mixed()
    model.compile("sgd")
    plain.compile("sgd", device=HostRuntime())
    for step in range(4):
        for part in (x[:8], x[8:16], x[:1], x[1:2], x[2:3]):
            plan = plain._plan()
            plan.refold()
            plain.eval()
            with plan.buffers(part.shape):
                want = ops.softmax_fwd(plan.forward(part))
            plain.train()
            np.testing.assert_array_equal(model.predict_on_batch(part), want)
        if step == 1:
            for one in (model, plain):
                one.load_state_dict({k: v * 2 for k, v in one.state_dict().items()})
        elif step == 2:
            for one in (model, plain):
                one.parameters()[0].replace(one.parameters()[0]._data * -1)
        else:
            for one in (model, plain):
                one.train_on_batch(x, y)


@pytest.mark.parametrize("mode", ["mean", "max", "mean_max"])
def test_time_pool_in_a_recorded_step(mode):
    x, y = images(16)
    found = []
    for pool in (nn.TimePool, OwnTimePool):
        model = nn.Sequential(
            nn.Conv2d(None, 8, 3), pool(mode), nn.Flatten(), nn.Linear(None, 3), seed=1
        )
        model.compile(Adam(0.01), metrics=[])
        found.append([model.train_on_batch(x, y)["loss"] for _ in range(6)])
    assert found[0] == found[1]
    assert found[0][-1] < found[0][0]
