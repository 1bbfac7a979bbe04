import io

import numpy as np
import pytest

from networks import Stream, assert_same_state, dense, images, mixed, seed_like
from stapes import nn
from stapes.audio import LogMel, Normalized
from stapes.optim import SGD, Adam, CosineLR
from stapes.train import Callback, Checkpoint, DivergedError


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_it_learns_and_tells_all_numbers():
    x, y = images(120)
    model = seed_like()
    model.compile(Adam(0.01), metrics=["accuracy", "balanced_accuracy", "mse"])
    history = model.fit(x, y, epochs=8, batch_size=16, validation_data=(x, y), progress=False)
    names = ["loss", "accuracy", "balanced_accuracy", "mse"]
    assert list(history.history) == names + [f"val_{name}" for name in names]
    assert all(len(values) == 8 for values in history.history.values())
    assert history.epochs == list(range(8))
    assert history.history["val_accuracy"][-1] > 0.9
    found = model.evaluate(x, y, batch_size=16)
    assert {f"val_{k}": v for k, v in found.items()} == {
        k: v[-1] for k, v in history.history.items() if k.startswith("val_")
    }


def test_means_are_weighted_by_samples_and_the_last_short_batch_counts():
    x, y = images(37)
    model = seed_like()
    model.compile(SGD(0.0))
    history = model.fit(x, y, batch_size=16, progress=False)
    model.eval()
    p = softmax(model.forward(x).astype(np.float64))
    expected = -np.log(p[np.arange(37), y]).mean()
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x, y, batch_size=10)["loss"] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x, y)["accuracy"] == (p.argmax(axis=1) == y).mean()


def test_steps_of_an_epoch():
    x, y = images(37)
    model = seed_like()
    optimizer = SGD(lr=CosineLR(0.1, total_steps=6))
    model.compile(optimizer)
    model.fit(x, y, batch_size=16, epochs=2, progress=False)
    assert optimizer.steps == 6
    assert optimizer.lr == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, list, "one_hot", "one_hot_int"])
def test_forms_of_targets_give_the_same_weights(kind):
    x, y = images(20)
    one_hot = np.eye(3, dtype=np.float32)[y]
    given = {"one_hot": one_hot, "one_hot_int": one_hot.astype(int), list: y.tolist()}
    given = given[kind] if kind in given else y.astype(kind)
    models = [seed_like(), seed_like()]
    for model, target in zip(models, (y, given), strict=True):
        model.compile("sgd")
        model.fit(x, target, batch_size=8, progress=False)
    np.testing.assert_allclose(*(m.state_dict()["9.weight"] for m in models), rtol=1e-5, atol=1e-7)


def test_inputs_are_converted_to_the_precision():
    x, y = images(20)
    models = [seed_like() for _ in range(3)]
    for model, given in zip(models, (x, x.astype(np.float64), x.tolist()), strict=True):
        model.compile("sgd")
        model.fit(given, y, progress=False)
        assert model.predict(given).dtype == np.float32
    assert_same_state(models[0], models[1])
    assert_same_state(models[0], models[2])
    models[0].compile(precision="fp64")
    models[0].fit(x, y, progress=False)
    assert models[0].predict(x).dtype == np.float64


def test_mse_and_its_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    y = x @ [1.0, -2.0, 0.5] + 3
    model = nn.Sequential(nn.Linear(None, 1))
    model.compile(SGD(0.1), loss="mse", precision="fp64")
    history = model.fit(x, y, batch_size=50, epochs=300, progress=False)
    assert list(history.history) == ["loss"]
    np.testing.assert_allclose(model.layers[0].weight.data, [[1, -2, 0.5]], atol=1e-6)
    np.testing.assert_allclose(model.predict(x)[:, 0], y, atol=1e-5)


def test_softmax_is_applied_exactly_once():
    x, y = images(12)
    plain, ended = seed_like(), seed_like()
    ended.layers.append(nn.Softmax())
    for model in (plain, ended):
        model.build(x.shape[1:])
        model.compile("sgd")
    assert plain.train_on_batch(x, y) == ended.train_on_batch(x, y)
    assert_same_state(plain, ended)
    expected = softmax(plain.eval().forward(x))
    for model in (plain, ended):
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5)
    np.testing.assert_allclose(ended.eval().forward(x), expected, rtol=1e-5)
    np.testing.assert_allclose(ended.extract(x, -1), expected, rtol=1e-5)
    ended.compile(loss="mse")  # here softmax is a layer like any other
    np.testing.assert_allclose(ended.predict(x), expected, rtol=1e-5)
    assert np.isfinite(ended.train_on_batch(x, np.eye(3)[y])["loss"])


def test_before_compile():
    x, y = images(6)
    model = seed_like()
    np.testing.assert_allclose(model.predict(x), model.eval().forward(x), rtol=1e-5)
    model.train().backward(np.ones((6, 3), np.float32) + 0 * model.forward(x))
    model.layers.append(nn.Softmax())
    np.testing.assert_allclose(model.predict(x).sum(axis=1), 1, rtol=1e-5)
    for verb in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(RuntimeError, match=r"call compile\(\) first"):
            verb(x, y)


def test_callable_metrics_get_what_predict_gives():
    x, y = images(12)
    seen = []

    def largest(output, target):
        seen.append((output.copy(), target.copy()))
        return output.max()

    model = seed_like()
    model.compile("sgd", metrics=[largest])
    assert model.evaluate(x, y)["largest"] == model.predict(x).max()
    np.testing.assert_array_equal(seen[0][0], model.predict(x))
    np.testing.assert_array_equal(seen[0][1], y)


def test_losses_of_ones_own_and_ignored_ids():
    x, y = images(12)
    y[::3] = 77
    model = seed_like()
    model.compile("sgd", loss=nn.CrossEntropyLoss(ignore_index=77))
    kept = model.evaluate(x[y != 77], y[y != 77])
    assert model.evaluate(x, y) == pytest.approx(kept, rel=1e-5)
    with pytest.raises(ValueError, match="got 78 at sample 0"):
        model.evaluate(x, np.full(12, 78))

    def half_square(output, target):
        return 0.5 * np.square(output - target).sum(), output - target

    model.compile("sgd", loss=half_square)
    assert list(model.train_on_batch(x, np.zeros((12, 3), np.float32))) == ["loss"]


def test_data_objects():
    x, y = images(50)
    data = Stream(x, y)
    data.features, data.clip_seconds = object(), 1.5
    model = mixed()
    model.compile("sgd")
    history = model.fit(data, epochs=2, batch_size=16, validation_data=data, progress=False)
    assert len(history.history["val_accuracy"]) == 2
    assert model.classes == ["a", "b", "c"]
    assert model.features is data.features
    assert model.clip_seconds == 1.5
    assert model.evaluate(data)["loss"] == model.evaluate(x, y)["loss"]
    np.testing.assert_array_equal(model.predict(data), model.predict(x))
    with pytest.raises(ValueError, match=r"classes \['b', 'a', 'c'\], those trained on are \['a'"):
        model.evaluate(Stream(x, y, "bac"))
    with pytest.raises(ValueError, match="y must be None"):
        model.fit(data, y)


def test_validation_data_must_mean_what_was_trained_on():
    x, y = images(20)
    data, raw = Stream(x, y), Stream(x, y)
    data.features = raw.features = LogMel()
    data.features = Normalized(LogMel(), np.zeros(64), np.full(64, 2.0))
    model = mixed()
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"validation_data: the data has the classes \['b'"):
        model.fit(data, validation_data=Stream(x, y, "bac"), progress=False)
    with pytest.raises(ValueError, match="validation_data: the data has other features"):
        model.fit(data, validation_data=raw, progress=False)
    model.fit(data, validation_data=(x, y), progress=False)
    for verb in (model.evaluate, model.predict):
        with pytest.raises(ValueError, match=f"{verb.__name__}: the data has other features"):
            verb(raw)


def test_a_callback_may_change_the_learning_rate():
    class Halve(Callback):
        def on_epoch_end(self, model, logs):
            model.optimizer.lr /= 2

    x, y = images(20)
    model = seed_like()
    assert model.optimizer is None
    model.compile(SGD(0.1))
    model.fit(x, y, epochs=3, callbacks=[Halve()], progress=False)
    assert model.optimizer.lr == 0.1 / 8


def test_arguments_that_cannot_be_trained_with():
    x, y = images(8)
    model = mixed()
    model.compile("sgd")
    with pytest.raises(TypeError, match="callbacks must be a list, got <"):
        model.fit(x, y, callbacks=Callback(), progress=False)
    with pytest.raises(TypeError, match=r"callbacks must be stapes.train.Callback, got <class"):
        model.fit(x, y, callbacks=[Callback], progress=False)
    with pytest.raises(ValueError, match="fit: seed must be at least 0"):
        model.fit(x, y, seed=-1, progress=False)
    with pytest.raises(ValueError, match="train_on_batch: there are no samples"):
        model.train_on_batch(x[:0], y[:0])


def test_a_validation_loss_that_is_not_finite_stops_training(tmp_path):
    x, y = images(20)
    spoilt = x.copy()
    spoilt[-1] = np.nan
    model = seed_like()
    model.compile("sgd")
    keep = Checkpoint(tmp_path / "checkpoint")
    with pytest.raises(DivergedError, match="epoch 1, after step 2: the validation loss is nan"):
        model.fit(
            x, y, batch_size=10, validation_data=(spoilt, y), callbacks=[keep], progress=False
        )
    assert not (tmp_path / "checkpoint").exists()
    assert np.isnan(model.evaluate(spoilt, y)["loss"])


def test_weights_assigned_in_another_dtype_are_converted():
    x, y = images(8)
    model = seed_like()
    model.build(x.shape[1:])
    model.compile("sgd")
    expected = model.predict(x)
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    np.testing.assert_array_equal(model.predict(x), expected)
    model.train_on_batch(x, y)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_the_seed_decides():
    x, y = images(50)
    models = [mixed() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.compile("sgd")
        model.fit(x, y, seed=seed, epochs=2, progress=False)
    assert_same_state(models[0], models[1])
    with pytest.raises(AssertionError):
        assert_same_state(models[0], models[2])


def test_each_epoch_has_another_order():
    x, y = images(50)
    orders = []

    class Spy(Stream):
        def batches(self, *args, **kwargs):
            for xb, yb in super().batches(*args, **kwargs):
                orders.append(yb)
                yield xb, yb

    model = mixed()
    model.compile("sgd")
    model.fit(Spy(x, y), batch_size=50, epochs=2, progress=False)
    _, first, second = orders  # the first is a look at one sample
    assert sorted(first) == sorted(second) == sorted(y)
    assert not np.array_equal(first, second)


def test_extract():
    x, _ = images(5)
    model = mixed()
    model.build(x.shape[1:])
    model.eval()
    after = [x]
    for layer in model.layers:
        after.append(layer.forward(after[-1]))
    for i in range(len(model.layers)):
        np.testing.assert_array_equal(model.extract(x, i), after[i + 1])
        np.testing.assert_array_equal(model.extract(x, str(i)), after[i + 1])
    np.testing.assert_array_equal(model.extract(x, -1), after[-1])
    np.testing.assert_array_equal(model.extract(x, "0.0"), model.layers[0].layers[0].forward(x))
    np.testing.assert_array_equal(
        model.extract(x, "2.0"), model.layers[2].layers[0].forward(after[2])
    )
    for wrong in (6, -7, "9", "0.3", "3.0"):
        with pytest.raises(ValueError, match="there is no layer"):
            model.extract(x, wrong)
    for wrong in ("relu", True, 1.5, None):
        with pytest.raises((TypeError, ValueError)):
            model.extract(x, wrong)


# Bad input.


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"device": "cuda"}, ValueError, "no CUDA kernels"),
        ({"device": "cuda:1"}, ValueError, "no CUDA kernels"),
        ({"device": "tpu"}, ValueError, "tpu"),
        ({"precision": "bf16"}, ValueError, "needs CUDA"),
        ({"precision": "tf32"}, ValueError, "needs CUDA"),
        ({"precision": "fp16"}, ValueError, "needs CUDA"),
        ({"precision": "int8"}, ValueError, "int8"),
        ({"optimizer": "lion"}, ValueError, "lion"),
        ({"optimizer": 3}, TypeError, "3"),
        ({"loss": "hinge"}, ValueError, "hinge"),
        ({"loss": 3}, TypeError, "3"),
        ({"metrics": ["f1"]}, ValueError, "f1"),
        ({"metrics": "accuracy"}, TypeError, "list"),
    ],
)
def test_wrong_arguments_of_compile(kwargs, error, text):
    with pytest.raises(error, match=text):
        seed_like().compile(**kwargs)


def broken(y, value, at=4):
    y = y.copy()
    y[at] = value
    return y


@pytest.mark.parametrize("verb", ["fit", "evaluate", "train_on_batch"])
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda x, y: (x, broken(y, 3)), ValueError, "from 0 to 2, got 3 at sample 4"),
        (lambda x, y: (x, broken(y, -1)), ValueError, "from 0 to 2, got -1 at sample 4"),
        (lambda x, y: (x, y[:-1]), ValueError, "as many samples as x"),
        (lambda x, y: (x, None), ValueError, "y is missing"),
        (lambda x, y: (x, y[:, None]), ValueError, r"class ids \(N,\) or probabilities \(N, 3\)"),
        (lambda x, y: (x, y.astype(float)), TypeError, "must be integers"),
        (lambda x, y: (x, y.astype(str)), TypeError, "must be numbers"),
        (lambda x, y: (x, broken(np.eye(3)[y], np.nan)), ValueError, "NaN or infinity at sample 4"),
        (lambda x, y: (x, np.eye(4)[y]), ValueError, r"\(N, 3\), got shape \(10, 4\)"),
        (lambda x, y: (x[..., 0], y), ValueError, "Conv2d"),
        (lambda x, y: (x[:, 0, 0, 0], y), ValueError, "sample's axes"),
        (lambda x, y: (x.astype(complex), y), TypeError, "complex"),
        (lambda x, y: (x.astype(object), y), TypeError, "object"),
    ],
)
def test_wrong_data(verb, change, error, text):
    model = seed_like()
    model.compile()
    kwargs = {"progress": False} if verb == "fit" else {}
    x, y = change(*images(10))
    with pytest.raises(error, match=text):
        getattr(model, verb)(x, y, **kwargs)


def test_more_wrong_arguments_of_fit():
    x, y = images(10)
    model = seed_like()
    model.compile()
    for kwargs in ({"batch_size": 0}, {"epochs": 0}, {"batch_size": 2.5}, {"epochs": True}):
        with pytest.raises(ValueError, match="positive integer"):
            model.fit(x, y, progress=False, **kwargs)
    with pytest.raises(ValueError, match="there are no samples"):
        model.fit(x[:0], y[:0])
    with pytest.raises(TypeError, match="validation_data must be"):
        model.fit(x, y, validation_data=x)
    with pytest.raises(ValueError, match="got 9 at sample 0"):
        model.fit(x, y, validation_data=(x, np.full(10, 9)))
    with pytest.raises(TypeError, match="Callback"):
        model.fit(x, y, callbacks=[print])


@pytest.mark.parametrize(
    ("loss", "one_hot"),
    [("categorical_crossentropy", False), ("sparse_categorical_crossentropy", True)],
)
def test_the_strict_losses_take_one_form(loss, one_hot):
    x, y = images(10)
    right, wrong = (np.eye(3)[y], y)[:: 1 if not one_hot else -1]
    model = seed_like()
    model.compile(loss=loss)
    model.train_on_batch(x, right)
    with pytest.raises(ValueError, match=loss):
        model.train_on_batch(x, wrong)


def test_cross_entropy_needs_classes():
    x, y = images(10)
    model = nn.Sequential(nn.Conv2d(None, 3, 3))
    model.compile()
    with pytest.raises(ValueError, match=r"outputs \(N, classes\)"):
        model.fit(x, y)


def test_mse_shapes():
    x, y = images(10)
    model = seed_like()
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"\(N, 3\), got \(10,\)"):
        model.fit(x, y)
    with pytest.raises(ValueError, match="sample 4"):
        model.fit(x, broken(np.eye(3)[y], np.inf))


# Numbers that are not finite.


def test_an_input_that_is_not_finite_stops_training():
    x, y = images(40)
    x[7, 3, 3] = np.nan
    model = mixed()
    model.compile("sgd")
    model.build(x.shape[1:])
    with pytest.raises(
        FloatingPointError,
        match=r"epoch 1, step \d+ \(batch \d+\): the loss is nan"
        r"; the input has NaN",
    ):
        model.fit(x, y, batch_size=8, progress=False)
    for value in model.layers[-1].state_dict().values():
        assert np.isfinite(value).all()


@pytest.mark.parametrize("fuse", [True, False])
def test_a_loss_that_is_not_finite_names_the_layer(fuse):
    x, y = images(40)

    class Break(Callback):
        def on_batch_end(self, model, logs):
            if logs["step"] == 7:
                model.layers[3].weight.data[0, 1, 1, 0] = np.inf

    model = seed_like()
    model.compile("sgd", fuse=fuse)
    text = r"epoch 2, step 8 \(batch 3\): the loss is nan; .* that is not finite is that of layer 3"
    with pytest.raises(DivergedError, match=text + r" \(Conv2d\).*3\.weight"):
        model.fit(x, y, batch_size=8, epochs=3, callbacks=[Break()], progress=False)


def test_divergence_in_the_last_step_is_found_at_the_end_of_the_epoch():
    x, y = images(16)
    model = dense(3)
    model.compile(SGD(1e38))
    with pytest.raises(DivergedError, match=r"weight has NaN|bias has NaN|the loss is"):
        model.fit(x.reshape(16, -1) * 1e3, y, batch_size=16, progress=False)


# Progress.


def test_progress_is_a_line_an_epoch_on_stderr(capsys):
    x, y = images(20)
    model = seed_like()
    model.compile()
    model.fit(x, y, epochs=2, validation_data=(x, y))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")
    for name in ("accuracy", "val_loss", "val_accuracy"):
        assert f"  {name} " in lines[1]
    model.fit(x, y, progress=False)
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    x, y = images(20)
    model = seed_like()
    model.compile()
    model.fit(x, y, epochs=2, batch_size=5)
    shown = terminal.getvalue()
    assert "epoch 2/2" in shown
    assert "4/4" in shown
    assert "accuracy 0." in shown
