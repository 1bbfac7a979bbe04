"""The training step on a device: the CPU's results, as one launch, with numbers that come late."""

import numpy as np
import pytest

from networks import Stream, assert_same_state, images, mixed, seed_like
from stapes import load, nn
from stapes.device import cuda_reason
from stapes.optim import SGD, Adam, AdamW, CosineLR, StepLR
from stapes.train import Callback, Checkpoint, CSVLogger, DivergedError, EarlyStopping, StopWhen
from stapes.train.callbacks import grad_norm
from stapes.train.runtime import HostRuntime
from step_devices import EVERYWHERE, KERNELS_OF_CUDA, Replaying, on

METRICS = ["accuracy", "balanced_accuracy", "mse"]

# Largest distance of weights after a few steps from those of the CPU, as a part of the way there.
TOLERANCE = {"fp32": 1e-3, "fp32_split": 1e-3, "tf32": 0.15, "bf16": 0.4, "fp16": 0.15}


@pytest.fixture
def device(request):
    with request.param.active():
        yield request.param


def compiled(device, make=seed_like, optimizer=None, precision="fp32", **kwargs):
    model = make()
    where = "cpu" if device is None else device.runtime()
    model.compile(
        optimizer or Adam(CosineLR(0.01, total_steps=30)),
        metrics=METRICS, device=where, precision=precision, **kwargs,
    )  # fmt: skip
    return model


def trained(model, data=None, epochs=3, **kwargs):
    x, y = data or images(40)
    return model.fit(x, y, epochs=epochs, batch_size=16, progress=False, **kwargs).history


def host(state):
    return {name: value if isinstance(value, np.ndarray) else value.get() for name, value in state}


def way(model, start):
    """All weights as one vector, from where they started."""
    state = host(model.state_dict().items())
    return np.concatenate([(state[name] - start[name]).ravel() for name in state])


# The same results.


@on("host", "replay")
@pytest.mark.parametrize("make", [seed_like, mixed])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(
    "optimizer",
    [lambda: SGD(StepLR(0.05, 3), momentum=0.9, nesterov=True), lambda: AdamW(CosineLR(0.01, 9))],
)
def test_the_bits_are_the_cpus(device, make, precision, optimizer):
    x, y = images(40)
    results = []
    for where in (None, device):
        model = compiled(where, make, optimizer(), precision)
        history = trained(model, validation_data=(x, y))
        results.append((history, model.evaluate(x, y), model.train_on_batch(x[:7], y[:7])))
        results[-1] += (model.predict(x).tobytes(), model.extract(x[:3], 1).tobytes())
        results[-1] += (model,)
    assert results[0][:-1] == results[1][:-1]
    assert_same_state(results[0][-1], results[1][-1])


@on("cpu", "replay", "simt", "cuda")
@pytest.mark.parametrize("make", [seed_like, mixed])
def test_a_graph_is_replayed_and_sees_new_numbers(device, make):
    """Batches, learning rates, step counts and dropout's offsets change, the launch does not."""
    runtime = device.runtime()
    graph, plain = make(), make()
    graph.compile(Adam(CosineLR(0.02, total_steps=12)), device=runtime)
    plain.compile(Adam(CosineLR(0.02, total_steps=12)), device=_without_graph(device))
    graph.build((9, 10, 1))
    start = host(graph.state_dict().items())
    assert trained(graph, epochs=4) == trained(plain, epochs=4)
    assert_same_state_anywhere(graph, plain)
    assert np.linalg.norm(way(graph, start)) > 0.1
    if isinstance(runtime, Replaying):
        assert runtime.replays == 4 * 3 - 2 * 2  # the full and the short batch: run, recorded


def _without_graph(device):
    if device.name != "cuda":
        runtime = HostRuntime()
        runtime.precisions = device.precisions
        return runtime
    from stapes.train import CudaRuntime

    return CudaRuntime(graph=False)


def assert_same_state_anywhere(a, b):
    a, b = host(a.state_dict().items()), host(b.state_dict().items())
    assert list(a) == list(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@on(*KERNELS_OF_CUDA)
@pytest.mark.parametrize("precision", list(TOLERANCE))
@pytest.mark.parametrize("make", [seed_like, mixed])
def test_every_precision_goes_the_cpus_way(device, make, precision):
    reference, model = compiled(None, make, SGD(0.02)), compiled(device, make, SGD(0.02), precision)
    for m in (reference, model):
        m.build((9, 10, 1))
    start = reference.state_dict()
    expected, got = trained(reference), trained(model)
    a, b = way(reference, start), way(model, start)
    assert np.linalg.norm(a - b) < TOLERANCE[precision] * np.linalg.norm(a)
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=TOLERANCE[precision] / 5)
    assert all(p.data.dtype == np.float32 for p in model.parameters())


@on(*KERNELS_OF_CUDA)
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_weights_have_16_bit_copies_that_follow_them(device, precision, dtype):
    x, y = images(16)
    model = compiled(device, precision=precision)
    trained(model, (x, y), epochs=2)

    def copies_fit():
        for p in model.parameters():
            assert p.rounded.dtype.name == dtype
            expected = p.like(np.empty(0, np.float32)).astype(p.rounded.dtype)
            np.testing.assert_array_equal(_plain(p.rounded), _plain(expected))

    copies_fit()
    before = model.predict(x)
    assert before.dtype == np.float32
    weight = model.parameters()[-2].data
    weight *= -1
    assert not np.allclose(model.predict(x), before, atol=1e-3)
    copies_fit()
    weight *= -1  # by an array that was got before
    np.testing.assert_array_equal(model.predict(x), before)
    model.load_state_dict({name: value * 0 for name, value in model.state_dict().items()})
    np.testing.assert_allclose(model.predict(x), 1 / 3)
    model.train_on_batch(x, y)
    copies_fit()


def _plain(x):
    return np.asarray(x.get() if hasattr(x, "get") else x).astype(np.float32)


@on(*KERNELS_OF_CUDA)
def test_fp16_steps_that_overflow_are_left_out(device):
    x, y = images(16)
    model = compiled(device, optimizer=Adam(0.01), precision="fp16")
    model.build(x.shape[1:])
    before = host(model.state_dict().items())
    scale = model._compiled.step.scale
    scale.factor[...] = 2.0**40  # gradients are infinite in float16
    for i in range(4):
        assert scale.state_dict() == {"factor": 2.0 ** (40 - i), "step": 1, "good_steps": 0}
        loss = model.train_on_batch(x, y)["loss"]
        assert np.isfinite(loss)
    after = host(model.state_dict().items())
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)
    scale.factor[...] = 2.0**10
    model.train_on_batch(x, y)
    assert scale.state_dict() == {"factor": 2.0**10, "step": 2, "good_steps": 1}
    # Adam's first step is lr * sign(g), whatever the scale: the steps left out do not count.
    a, b = host(model.state_dict().items()), before
    steps = np.concatenate([(a[name] - b[name]).ravel() for name in a])
    assert np.abs(steps).max() == pytest.approx(0.01, rel=1e-3)


@on(*KERNELS_OF_CUDA)
def test_the_gradients_norm_is_without_the_loss_scale(device):
    x, y = images(16)
    norms = []
    for where, precision in ((None, "fp32"), (device, "fp16")):
        model = compiled(where, precision=precision)
        model.train_on_batch(x, y)
        norms.append(grad_norm(model))
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


@on(*EVERYWHERE)
def test_class_weights_smoothing_probabilities_and_mse(device):
    x, y = images(16)
    one_hot = np.eye(3)[y]
    losses = [
        (nn.CrossEntropyLoss(np.array([0.5, 1, 2]), label_smoothing=0.1), y),
        ("categorical_crossentropy", one_hot),
        ("mse", one_hot),
    ]
    for loss, target in losses:
        models = [seed_like(), seed_like()]
        for model, where in zip(models, ("cpu", device.runtime()), strict=True):
            model.compile(SGD(0.1), loss, device=where)
        found = [
            [model.train_on_batch(x, target)["loss"] for _ in range(4)] + [model.predict(x)]
            for model in models
        ]
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@on("host", "replay")
def test_a_loss_of_ones_own(device):
    def squared(output, target):
        return np.square(output - target).mean(), 2 * (output - target) / output.size

    x, y = images(16)
    targets = np.eye(3, dtype=np.float32)[y]
    found = []
    for where in ("cpu", HostRuntime()):
        model = seed_like()
        model.compile(SGD(0.1), squared, metrics=["mae"], device=where)
        found.append([model.train_on_batch(x, targets) for _ in range(3)])
    assert found[0] == found[1]


# Late numbers.


class Watching(Callback):
    """Keeps what it is told at the end of batches, or only that it was told."""

    def __init__(self, look=True):
        self.look, self.seen = look, []

    def on_batch_end(self, model, logs):
        self.seen.append(dict(logs) if self.look else logs["step"])


@on("host", "replay", "simt", "cuda")
def test_callbacks_get_the_numbers_of_their_step(device):
    logs = []
    for where in (None, device):
        watching = Watching()
        trained(compiled(where), callbacks=[watching])
        logs.append(watching.seen)
    assert [a.keys() for a in logs[0]] == [a.keys() for a in logs[1]]
    for a, b in zip(*logs, strict=True):
        assert a["step"] == b["step"]
        assert a == b if device.exact else a["loss"] == pytest.approx(b["loss"], rel=1e-3)


class Tape(HostRuntime):
    """Tells when steps are launched and when the host waits for one."""

    late = 3

    def __init__(self):
        self.events, self.launched = [], 0

    def program(self, function):
        def launch():
            self.launched += 1
            self.events.append(("launch", self.launched))
            function()

        return launch

    def mark(self):
        return _Mark(self, self.launched)


class _Mark:
    def __init__(self, tape, step):
        self.tape, self.step = tape, step

    def synchronize(self):
        if self.tape.launched:
            self.tape.events.append(("wait", self.step))


def test_nothing_waits_for_the_last_steps():
    tape = Tape()
    model = seed_like()
    model.compile(SGD(0.05), device=tape)
    watching = Watching(look=False)
    trained(model, images(160), epochs=1, callbacks=[watching])
    assert watching.seen == list(range(1, 11))
    first = [tape.events.index(("wait", step)) for step in range(1, 8)]
    launches = [tape.events.index(("launch", step)) for step in range(1, 11)]
    for step, at in enumerate(first, 1):
        assert launches[step + 1] < at  # two steps further at least, and
        assert step + 3 >= 10 or at < launches[step + 3]  # four at most


@on(*EVERYWHERE)
def test_a_loss_that_is_not_finite_stops_training(device, tmp_path):
    x, y = images(96)
    order = np.random.default_rng(np.random.SeedSequence([5, 0])).permutation(96)
    x[order[5 * 8]] = np.nan
    models, errors = [], []
    for where in (None, device):
        model = compiled(where, optimizer=Adam(0.01))
        with pytest.raises(DivergedError, match=r"epoch 1, step 6 \(batch 6\): the loss is nan"
                           ".*the input has NaN") as error:  # fmt: skip
            model.fit(x, y, batch_size=8, progress=False, seed=5,
                      callbacks=[Checkpoint(tmp_path / "c", every_steps=1)])  # fmt: skip
        models.append(model)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert models[0].optimizer.steps == models[1].optimizer.steps
    a, b = (host(m.state_dict().items()) for m in models)
    for name in a:  # the weights are those before the step that failed
        np.testing.assert_allclose(b[name], a[name], rtol=0 if device.exact else 1e-3, atol=1e-5)
    assert np.isfinite(models[1].train_on_batch(*images(8))["loss"])
    resumed = compiled(device, optimizer=Adam(0.01))
    with pytest.raises(DivergedError, match=r"step 6 .*the loss is nan"):
        resumed.fit(x, y, batch_size=8, progress=False, seed=5, resume=tmp_path / "c",
                    callbacks=[Checkpoint(tmp_path / "d", every_steps=1)])  # fmt: skip


@on(*EVERYWHERE)
def test_an_overflow_of_the_weights_names_the_step_and_the_layer(device):
    x, y = images(64)
    model = compiled(device, optimizer=SGD(1e18))
    with pytest.raises(DivergedError, match=r"epoch 1, step \d \(batch \d\).*layer \d \("):
        model.fit(x, y, batch_size=8, progress=False)


# Resuming.


class Dies(Callback):
    def __init__(self, at=None):
        self.at = at

    def on_batch_end(self, model, logs):
        if logs["step"] == self.at:
            raise RuntimeError("killed")


def callbacks(folder, every_steps=None, at=None):
    return [
        Checkpoint(folder / "checkpoint", every_steps=every_steps),
        EarlyStopping("val_loss", 3),
        StopWhen(grad_norm_below=0.0),
        CSVLogger(folder / "history.csv"),
        Dies(at),
    ]


@on(*EVERYWHERE)
@pytest.mark.parametrize(("every_steps", "at"), [(None, 6), (2, 5), (1, 10)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_killed_run_resumes_to_the_same_bits(device, tmp_path, precision, every_steps, at):
    if precision not in device.precisions:
        pytest.skip("16-bit needs CUDA's kernels")
    data = Stream(*images(60))
    fit = {"batch_size": 16, "epochs": 3, "seed": 3, "validation_data": data, "progress": False}
    folders = [tmp_path / "unbroken", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    model = compiled(device, mixed, precision=precision)
    history = model.fit(data, **fit, callbacks=callbacks(folders[0], every_steps)).history
    with pytest.raises(RuntimeError, match="killed"):
        killed = compiled(device, mixed, precision=precision)
        killed.fit(data, **fit, callbacks=callbacks(folders[1], every_steps, at))
    resumed = compiled(device, mixed, precision=precision)
    again = resumed.fit(
        data, **fit, callbacks=callbacks(folders[1], every_steps),
        resume=folders[1] / "checkpoint",
    ).history  # fmt: skip
    assert again == history
    assert_same_state_anywhere(model, resumed)
    for name in ("checkpoint", "history.csv"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


# What a graph does not know.


class At(Callback):
    """Does something to the model after one step."""

    def __init__(self, step, change):
        self.step, self.change = step, change

    def on_batch_end(self, model, logs):
        if logs["step"] == self.step:
            self.change(model)


def _other_dropout(model):
    model.layers[4].p = 0.6


def _other_decay(model):
    model.optimizer.weight_decay = 0.3


def _other_rate(model):
    model.optimizer.lr = 0.05


def _loaded_optimizer(model):
    model.optimizer.load_state_dict(model.optimizer.state_dict())


def _assigned_weights(model):
    for p in model.parameters():
        p.data = p.data * 0.5


def _new_gradients(model):
    for p in model.parameters():
        p.grad = None


def _other_class_weights(model):
    model._compiled.loss.weight = np.array([1.0, 2.0, 0.5])


def _a_forward(model):
    model.predict(np.ones((16, 9, 10, 1), np.float32))


@on(*EVERYWHERE)
@pytest.mark.parametrize(
    "change",
    [_other_dropout, _other_decay, _other_rate, _loaded_optimizer, _assigned_weights,
     _new_gradients, _other_class_weights, _a_forward],
)  # fmt: skip
def test_changes_between_steps_are_seen(device, change):
    results = []
    for where in (device.runtime(), _without_graph(device)):
        model = mixed()
        model.compile(Adam(0.01), device=where)
        results.append((trained(model, images(48), callbacks=[At(5, change)]), model))
    assert results[0][0] == results[1][0]
    assert_same_state_anywhere(results[0][1], results[1][1])


@on(*EVERYWHERE)
def test_models_on_a_device_are_saved_and_loaded(device, tmp_path):
    x, y = images(20)
    model = compiled(device, mixed)
    trained(model, (x, y))
    model.save(tmp_path / "m")
    other = load(tmp_path / "m")
    np.testing.assert_allclose(other.predict(x), model.predict(x), rtol=1e-4, atol=1e-6)
    again = compiled(device, mixed)
    again.build(x.shape[1:])
    again.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@on(*EVERYWHERE)
def test_many_shapes(device):
    model, plain = compiled(device), compiled(None)
    for samples in (3, 5, 3, 1, 2, 4, 6, 7, 8, 9, 10, 11, 3, 5, 3):
        x, y = images(samples, seed=samples)
        a, b = model.train_on_batch(x, y), plain.train_on_batch(x, y)
        assert a == b if device.exact else a["loss"] == pytest.approx(b["loss"], rel=1e-2)


@on("host", "replay")
def test_compile_again_for_the_cpu(device):
    x, y = images(16)
    model = compiled(device)
    trained(model, (x, y))
    before = model.predict(x)
    model.compile("sgd", device="cpu")
    np.testing.assert_array_equal(model.predict(x), before)
    assert np.isfinite(model.train_on_batch(x, y)["loss"])


# Errors.


def test_what_is_missing_is_told():
    reason = cuda_reason()
    if reason is None:
        pytest.skip("CUDA is there")
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used: .") as error:
            seed_like().compile(device=device)
        assert reason in str(error.value)
    for precision in ("tf32", "fp32_split", "bf16", "fp16"):
        with pytest.raises(ValueError, match=f"precision '{precision}' needs CUDA: .") as error:
            seed_like().compile(precision=precision)
        assert reason in str(error.value)
    with pytest.raises(ValueError, match='device must be "auto", "cpu" or "cuda"'):
        seed_like().compile(device="gpu")


def test_precisions_a_device_does_not_have():
    with pytest.raises(ValueError, match="'bf16' is not to be had on cpu: there are fp32, fp64"):
        seed_like().compile(device=HostRuntime(), precision="bf16")


@on("cuda")
def test_fp64_is_for_the_cpu(device):
    with pytest.raises(ValueError, match="'fp64' is not to be had on cuda:"):
        seed_like().compile(device="cuda", precision="fp64")


@on("cuda")
def test_cupy_arrays_stay_on_the_device(device):
    import cupy

    x, y = images(40)
    models = [compiled(device), compiled(device)]
    a = trained(models[0], (x, y))
    b = trained(models[1], (cupy.asarray(x), cupy.asarray(y)))
    assert a == b
    found = models[0].predict(cupy.asarray(x))
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_array_equal(found.get(), models[0].predict(x))
    assert isinstance(models[0].predict(x), np.ndarray)
    with pytest.raises(TypeError, match="x is on cuda:0, the network on the CPU"):
        compiled(None).predict(cupy.asarray(x))


@on("cuda")
def test_a_loss_that_waits_cannot_be_captured(device):
    def waiting(output, target):
        return float(output.sum()), output

    model = seed_like()
    model.compile("sgd", waiting, device="cuda")
    with pytest.raises(TypeError, match="must return a CuPy array"):
        model.train_on_batch(*images(8))
