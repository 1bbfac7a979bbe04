import csv

import numpy as np
import pytest

from networks import assert_same_state, dense, images, seed_like
from stapes import nn
from stapes.optim import SGD
from stapes.train import Callback, CSVLogger, EarlyStopping, StopWhen
from stapes.train.callbacks import grad_norm


def regression(samples=40):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 3))
    return x, x @ [1.0, -2.0, 0.5] + 3


def line():
    model = nn.Sequential(nn.Linear(None, 1))
    model.compile(SGD(0.1), loss="mse", precision="fp64")
    return model


class Recorder(Callback):
    def __init__(self):
        self.turns = []

    def _note(self, turn, logs):
        self.turns.append((turn, dict(logs)))

    def on_train_begin(self, model, logs):
        self._note("train_begin", logs)

    def on_epoch_begin(self, model, logs):
        self._note("epoch_begin", logs)

    def on_batch_end(self, model, logs):
        self._note("batch_end", logs)

    def on_epoch_end(self, model, logs):
        self._note("epoch_end", logs)

    def on_train_end(self, model, logs):
        self._note("train_end", logs)


def test_turns_and_their_logs():
    x, y = images(20)
    model = seed_like()
    model.compile()
    recorder = Recorder()
    history = model.fit(
        x, y, epochs=2, batch_size=12, validation_data=(x, y), callbacks=[recorder], progress=False
    )
    epoch = ["epoch_begin", "batch_end", "batch_end", "epoch_end"]
    assert [turn for turn, _ in recorder.turns] == ["train_begin", *epoch, *epoch, "train_end"]
    logs = [logs for _, logs in recorder.turns]
    assert logs[0] == {"epochs": 2, "epoch": 0, "steps": 2}
    assert [(entry["epoch"], entry["batch"], entry["step"]) for entry in (logs[2], logs[7])] == [
        (0, 0, 1),
        (1, 1, 4),
    ]
    assert set(logs[2]) == {"epoch", "batch", "step", "loss", "accuracy"}
    names = {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(logs[8]) == names | {"epoch"}
    assert {name: logs[8][name] for name in names} == logs[9]
    assert logs[9] == {name: values[1] for name, values in history.history.items()}


def test_a_callback_stops_training_after_the_epoch():
    class Stop(Callback):
        def on_batch_end(self, model, logs):
            model.stop_training = logs["step"] == 4

    x, y = images(20)
    model = seed_like()
    model.compile()
    assert model.fit(x, y, epochs=9, batch_size=5, callbacks=[Stop()], progress=False).epochs == [0]
    assert model.fit(x, y, epochs=2, progress=False).epochs == [0, 1]


class Scripted(Callback):
    """Weights and monitored values as written down: epoch e has all weights equal to e."""

    def on_epoch_end(self, model, logs):
        for p in model.parameters():
            p.data = np.full(p.shape, logs["epoch"], p.dtype)


def scripted_run(values, stopping, epochs=10, name="val_score"):
    x, y = images(6)
    model = seed_like()

    def score(output, target):
        return values[len(model.history.epochs)]

    score.__name__ = name.removeprefix("val_")
    model.compile(SGD(0.0), metrics=[score])
    history = model.fit(
        x,
        y,
        epochs=epochs,
        validation_data=(x, y),
        callbacks=[Scripted(), stopping],
        progress=False,
    )
    return model, history


def weight_of(model):
    values = {float(v) for p in model.parameters() for v in p.data.flat}
    assert len(values) == 1
    return values.pop()


@pytest.mark.parametrize(
    ("values", "kwargs", "epochs", "best"),
    [
        ([5, 4, 3, 3, 3, 3, 0], {"patience": 2}, 5, 2),
        ([5, 4, 3, 3, 3, 3, 0], {"patience": 2, "restore_best_weights": False}, 5, 4),
        ([1, 2, 3, 1, 1, 1, 9], {"patience": 3, "mode": "max"}, 6, 2),
        ([5, 4.9, 4.8, 4.7, 0], {"patience": 3, "min_delta": 0.5}, 4, 0),
        ([np.nan, np.nan, 3, 4, 4], {"patience": 2}, 5, 2),
        ([np.nan] * 9, {"patience": 2}, 3, 0),
        ([9, 8, 7, 6, 5, 4, 3, 4, 3, 3], {"patience": 9}, 10, 6),
    ],
)
def test_early_stopping(values, kwargs, epochs, best):
    stopping = EarlyStopping("val_score", **kwargs)
    model, history = scripted_run(values, stopping)
    assert len(history.epochs) == epochs
    assert stopping.stopped_epoch == (epochs - 1 if epochs < 10 else None)
    assert weight_of(model) == best


def test_early_stopping_takes_larger_accuracies_for_better():
    model, history = scripted_run(
        [0.1, 0.9, 0.5, 0.4, 0.3], EarlyStopping("val_my_accuracy", 2), name="val_my_accuracy"
    )
    assert (len(history.epochs), weight_of(model)) == (4, 1)


def test_early_stopping_can_be_used_again():
    stopping = EarlyStopping("val_score", 2)
    scripted_run([1, 1, 1, 1], stopping)
    model, history = scripted_run([5, 4, 5, 5], stopping)
    assert (len(history.epochs), weight_of(model), stopping.best) == (4, 1, 4)


def test_early_stopping_without_its_number():
    x, y = images(6)
    model = seed_like()
    model.compile()
    with pytest.raises(ValueError, match=r"no 'val_loss' in the logs: \['accuracy', 'loss'\]"):
        model.fit(x, y, callbacks=[EarlyStopping()], progress=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping(patience=0),
        lambda: EarlyStopping(mode="best"),
        lambda: EarlyStopping(min_delta=-1),
        lambda: StopWhen(),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(ValueError, match=r"EarlyStopping|StopWhen"):
        make()


def test_stop_when_the_loss_is_small():
    x, y = regression()
    stop = StopWhen(loss_below=0.01)
    history = line().fit(x, y, batch_size=40, epochs=500, callbacks=[stop], progress=False)
    losses = history.history["loss"]
    assert losses[-1] < 0.01 <= losses[-2]
    assert "is below 0.01" in stop.reason


def test_stop_when_the_gradient_is_small():
    x, y = regression()
    norms = []

    class Norms(Callback):
        def on_epoch_end(self, model, logs):
            norms.append(grad_norm(model))

    stop = StopWhen(grad_norm_below=0.01)
    line().fit(x, y, batch_size=40, epochs=500, callbacks=[Norms(), stop], progress=False)
    assert norms[-1] < 0.01 <= norms[-2]
    assert "gradient norm" in stop.reason


def test_stop_when_neither_comes():
    x, y = regression()
    stop = StopWhen(loss_below=-1, grad_norm_below=-1)
    history = line().fit(x, y, epochs=3, callbacks=[stop], progress=False)
    assert (len(history.epochs), stop.reason) == (3, None)


def test_grad_norm():
    x, y = regression()
    model = line()
    model.train_on_batch(x, y)
    together = np.concatenate([p.grad.ravel() for p in model.parameters()])
    assert grad_norm(model) == pytest.approx(np.linalg.norm(together), rel=1e-14)


def test_csv_logger(tmp_path):
    x, y = images(20)
    model = seed_like()
    model.compile()
    path = tmp_path / "history.csv"
    path.write_text("what was here before")
    history = model.fit(
        x, y, epochs=3, validation_data=(x, y), callbacks=[CSVLogger(path)], progress=False
    )
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    for name, values in history.history.items():
        assert [float(row[name]) for row in rows] == values
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    with pytest.raises(FileNotFoundError, match="no_folder"):
        model.fit(x, y, callbacks=[CSVLogger(tmp_path / "no_folder" / "a")], progress=False)


def test_callbacks_do_not_change_training():
    x, y = images(40)
    models = [dense(3), dense(3)]
    for model, callbacks in zip(models, ([], [Recorder(), EarlyStopping("loss", 9)]), strict=True):
        model.compile(SGD(0.01))
        model.fit(x.reshape(40, -1), y, epochs=4, callbacks=callbacks, progress=False)
    assert_same_state(*models)
