"""Runs that are killed and resumed end in the same bits as runs that are not."""

import random as stdlib_random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from networks import Stream, assert_same_state, images, mixed, seed_like
from stapes import ModelError
from stapes.optim import SGD, Adam, AdamW, CosineLR
from stapes.train import Callback, Checkpoint, CSVLogger, DivergedError, EarlyStopping, StopWhen

HERE = Path(__file__).parent


class Dies(Callback):
    """Raises at one step: for the run it is as if it had been killed there."""

    def __init__(self, at=None, error=RuntimeError):
        self.at, self.error = at, error

    def on_batch_end(self, model, logs):
        if logs["step"] == self.at:
            raise self.error("killed")


def compiled(make=mixed, optimizer=None, **kwargs):
    model = make()
    optimizer = optimizer or Adam(CosineLR(0.01, total_steps=60))
    model.compile(optimizer, metrics=["accuracy", "balanced_accuracy", "mse"], **kwargs)
    return model


def callbacks(folder, every_steps=None, at=None, error=RuntimeError):
    return [
        Checkpoint(folder / "checkpoint", every_steps=every_steps),
        EarlyStopping("val_loss", 3),
        StopWhen(grad_norm_below=0.0),
        CSVLogger(folder / "history.csv"),
        Dies(at, error),
    ]


def unbroken(tmp_path, data, every_steps=None, epochs=5, make=compiled):
    folder = tmp_path / "unbroken"
    folder.mkdir()
    model = make()
    history = model.fit(
        data, batch_size=16, epochs=epochs, seed=3, validation_data=data, progress=False,
        callbacks=callbacks(folder, every_steps),
    )  # fmt: skip
    return model, history, folder


def assert_same_run(a, b, folder_a, folder_b):
    (model_a, history_a), (model_b, history_b) = a, b
    assert_same_state(model_a, model_b)
    assert history_a.history == history_b.history
    assert history_a.epochs == history_b.epochs
    for name in ("checkpoint", "history.csv"):
        assert (folder_a / name).read_bytes() == (folder_b / name).read_bytes()


@pytest.mark.parametrize("every_steps", [None, 1, 3])
@pytest.mark.parametrize("at", [4, 6, 12, 14, 19])
def test_killed_at_a_step(tmp_path, every_steps, at):
    data = Stream(*images(60))  # 4 steps an epoch, the last one short
    model, history, folder = unbroken(tmp_path, data, every_steps)
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(RuntimeError, match="killed"):
        compiled().fit(
            data, batch_size=16, epochs=5, seed=3, validation_data=data, progress=False,
            callbacks=callbacks(again, every_steps, at),
        )  # fmt: skip
    resume = again / "checkpoint" if (again / "checkpoint").exists() else None
    assert resume is not None or (every_steps is None and at <= 4)
    resumed = compiled()
    other_history = resumed.fit(
        data, batch_size=16, epochs=5, seed=3, validation_data=data, progress=False,
        callbacks=callbacks(again, every_steps), resume=resume,
    )  # fmt: skip
    assert_same_run((model, history), (resumed, other_history), folder, again)


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.05, momentum=0.9), lambda: AdamW(0.01)])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_every_optimizer_and_precision(tmp_path, optimizer, precision):
    x, y = images(50)
    models = [compiled(seed_like, optimizer(), precision=precision) for _ in range(3)]
    models[0].fit(x, y, batch_size=16, epochs=4, progress=False)
    path = tmp_path / "c"
    with pytest.raises(RuntimeError, match="killed"):
        models[1].fit(
            x, y, batch_size=16, epochs=4, progress=False,
            callbacks=[Checkpoint(path, every_steps=5), Dies(7)],
        )  # fmt: skip
    models[2].fit(
        x, y, batch_size=16, epochs=4, progress=False,
        callbacks=[Checkpoint(path), Dies()], resume=path,
    )  # fmt: skip
    assert_same_state(models[0], models[2])


def test_resume_of_a_run_that_was_done_or_stopped(tmp_path):
    data = Stream(*images(60))
    model, history, folder = unbroken(tmp_path, data, epochs=3)
    for epochs in (3, 2):
        resumed = compiled()
        other = resumed.fit(
            data, batch_size=16, epochs=epochs, seed=3, validation_data=data, progress=False,
            callbacks=callbacks(folder), resume=folder / "checkpoint",
        )  # fmt: skip
        assert other.history == history.history
        assert_same_state(model, resumed)

    class Stop(Callback):
        def on_epoch_end(self, model, logs):
            model.stop_training = logs["epoch"] == 1

    stopped = compiled()
    stopped.fit(
        data, epochs=9, callbacks=[Checkpoint(folder / "s"), Stop()], progress=False, batch_size=16
    )
    resumed = compiled()
    other = resumed.fit(
        data, epochs=9, callbacks=[Checkpoint(folder / "s"), Stop()], progress=False, batch_size=16,
        resume=folder / "s",
    )  # fmt: skip
    assert other.epochs == [0, 1]
    assert_same_state(stopped, resumed)


def test_more_epochs_after_a_run_that_was_done(tmp_path):
    x, y = images(50)
    longer, first, second = (compiled() for _ in range(3))
    longer.fit(x, y, epochs=4, progress=False)
    first.fit(x, y, epochs=2, callbacks=[Checkpoint(tmp_path / "c")], progress=False)
    second.fit(
        x,
        y,
        epochs=4,
        callbacks=[Checkpoint(tmp_path / "c")],
        progress=False,
        resume=tmp_path / "c",
    )
    assert_same_state(longer, second)


def test_what_differs_is_told(tmp_path):
    x, y = images(50)
    path = tmp_path / "c"

    def run(make=seed_like, optimizer="adam", x=x, y=y, compile_with=None, **kwargs):
        model = make()
        model.compile(optimizer, **(compile_with or {}))
        kwargs = {"callbacks": [Checkpoint(path)], "progress": False, "epochs": 2, **kwargs}
        model.fit(x, y, **kwargs)

    run()
    before = path.read_bytes()
    for text, kwargs in {
        "seed was 0 and is 1": {"seed": 1},
        "batch_size was 32 and is 16": {"batch_size": 16},
        "network was": {"make": mixed},
        "optimizer was 'Adam' and is 'SGD'": {"optimizer": "sgd"},
        "precision was 'fp32' and is 'fp64'": {"compile_with": {"precision": "fp64"}},
        "loss was 'cross_entropy' and is 'sparse": {
            "compile_with": {"loss": "sparse_categorical_crossentropy"}
        },
        "metrics was": {"compile_with": {"metrics": []}},
        "data was": {"y": (y + 1) % 3},
        "callbacks was": {"callbacks": [Checkpoint(path), Dies()]},
    }.items():
        with pytest.raises(ModelError, match=f"c: cannot be resumed from here: {text}"):
            run(**kwargs, resume=path)
    assert path.read_bytes() == before


def test_damaged_checkpoints(tmp_path):
    x, y = images(20)
    path = tmp_path / "c"
    seed_like_model = compiled(seed_like)
    seed_like_model.fit(x, y, callbacks=[Checkpoint(path)], progress=False)
    content = bytearray(path.read_bytes())
    for i in range(0, len(content), 211):
        content[i] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(ModelError):
            seed_like_model.fit(x, y, callbacks=[Checkpoint(path)], progress=False, resume=path)
        content[i] ^= 0x10
    with pytest.raises(FileNotFoundError):
        seed_like_model.fit(x, y, progress=False, resume=tmp_path / "nothing")
    seed_like_model.save(path)
    with pytest.raises(ModelError, match=r"is a stapes\.model file"):
        seed_like_model.fit(x, y, callbacks=[Checkpoint(path)], progress=False, resume=path)


def test_the_last_good_checkpoint_is_kept(tmp_path):
    x, y = images(48)
    path = tmp_path / "c"
    kept = []

    class Break(Callback):
        def on_batch_end(self, model, logs):
            if logs["step"] == 5 and len(kept) < 2:
                kept.append(path.read_bytes())
                model.layers[0].weight.data[...] = np.nan

    for callbacks_ in ([Break(), Checkpoint(path)], [Break(), Checkpoint(path, every_steps=1)]):
        model = compiled(seed_like)
        with pytest.raises(DivergedError, match="epoch 2"):
            model.fit(x, y, batch_size=16, epochs=4, callbacks=callbacks_, progress=False)
        assert path.read_bytes() == kept[-1]
    model.fit(
        x, y, batch_size=16, epochs=4, callbacks=callbacks_, progress=False, resume=path
    )  # fmt: skip
    assert all(np.isfinite(value).all() for value in model.state_dict().values())


def test_best_only(tmp_path):
    x, y = images(40)
    path = tmp_path / "c"
    script = [3.0, 1.0, 2.0, 2.0]
    saved = []

    def score(output, target):
        return script[len(model.history.epochs)]

    class Spy(Checkpoint):
        def save(self, model):
            saved.append(model.history.epochs[-1])
            super().save(model)

    model = seed_like()
    model.compile("sgd", metrics=[score])
    spy = Spy(path, best_only=True, monitor="val_score")
    model.fit(x, y, epochs=4, validation_data=(x, y), callbacks=[spy], progress=False)
    assert saved == [0, 1]
    for kwargs in ({"every_steps": 0}, {"every_steps": 2, "best_only": True}):
        with pytest.raises(ValueError, match="every_steps"):
            Checkpoint(path, **kwargs)
    with pytest.raises(RuntimeError, match="no training under way"):
        spy.save(model)


def test_interrupt_in_a_callback_saves_and_is_raised(tmp_path):
    data = Stream(*images(60))
    model, history, folder = unbroken(tmp_path, data)
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(KeyboardInterrupt):
        compiled().fit(
            data, batch_size=16, epochs=5, seed=3, validation_data=data, progress=False,
            callbacks=callbacks(again, at=6, error=KeyboardInterrupt),
        )  # fmt: skip
    resumed = compiled()
    steps = []

    class Count(Dies):
        def on_batch_end(self, model, logs):
            steps.append(logs["step"])

    Count.__name__ = "Dies"
    other = resumed.fit(
        data, batch_size=16, epochs=5, seed=3, validation_data=data, progress=False,
        callbacks=[*callbacks(again)[:-1], Count()], resume=again / "checkpoint",
    )  # fmt: skip
    assert steps[0] == 7
    assert_same_run((model, history), (resumed, other), folder, again)


def test_interrupt_while_validating(tmp_path):
    data = Stream(*images(60))
    model, history, folder = unbroken(tmp_path, data)
    again = tmp_path / "again"
    again.mkdir()

    class Interrupted(Stream):
        calls = 0

        def batches(self, *args, **kwargs):
            self.calls += 1
            for i, batch in enumerate(super().batches(*args, **kwargs)):
                if self.calls == 4 and i == 2:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        compiled().fit(
            data, batch_size=16, epochs=5, seed=3, progress=False,
            validation_data=Interrupted(data.x_, data.labels), callbacks=callbacks(again),
        )  # fmt: skip
    resumed = compiled()
    other = resumed.fit(
        data, batch_size=16, epochs=5, seed=3, validation_data=data, progress=False,
        callbacks=callbacks(again), resume=again / "checkpoint",
    )  # fmt: skip
    assert_same_run((model, history), (resumed, other), folder, again)


def test_a_full_disk_stops_training_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "c"
    code = """
        import resource, sys
        sys.path.insert(0, sys.argv[2])
        from networks import images, seed_like
        from stapes.train import Callback, Checkpoint
        class Fill(Callback):
            def on_epoch_begin(self, model, logs):
                if logs["epoch"] == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        model = seed_like()
        model.compile()
        callbacks = [Fill(), Checkpoint(sys.argv[1])]
        model.fit(*images(30), epochs=int(sys.argv[3]), callbacks=callbacks, progress=False)
    """
    contents = []
    for epochs in ("2", "5"):
        command = [sys.executable, "-c", textwrap.dedent(code), str(path), str(HERE), epochs]
        done = subprocess.run(command, capture_output=True, text=True)
        contents.append(path.read_bytes())
    assert done.returncode == 1
    assert "cannot write the file: File too large" in done.stderr.splitlines()[-1]
    assert contents[0] == contents[1]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


# Real processes.

WORKER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_resume import work
work(Path(sys.argv[1]), sys.argv[3])
"""
EPOCHS = 8


def work(folder, source):
    """Train, from the checkpoint if there is one, and save the model at the end."""
    x, y = images(160, shape=(20, 20, 1))
    data = (Stream(x, y),) if source == "stream" else (x, y)
    model = compiled()
    path = folder / "checkpoint"
    model.fit(
        *data,
        batch_size=16,
        epochs=EPOCHS,
        seed=5,
        validation_data=(x, y),
        callbacks=callbacks(folder, every_steps=3),
        progress=False,
        resume=path if path.exists() else None,
    )
    model.save(folder / "model")


def start(folder, source):
    command = [sys.executable, "-c", WORKER, str(folder), str(HERE), source]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end(process):
    """Wait; exit status and what was said."""
    errors = process.communicate()[1]
    return process.returncode, errors


@pytest.mark.parametrize("source", ["arrays", "stream"])
def test_killed_at_random_moments(tmp_path, source):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    began = time.monotonic()
    assert end(start(whole, source)) == (0, "")
    seconds = time.monotonic() - began
    moments = stdlib_random.Random(source)
    killed = 0
    for _ in range(40):
        process = start(broken, source)
        path, before = broken / "checkpoint", time.monotonic()
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and time.monotonic() < before + 4 * seconds:
            if path.exists() and path.stat().st_mtime_ns != stamp:
                break  # it has begun to train
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        code, errors = end(process)
        assert code in (0, -signal.SIGKILL), errors
        if code == 0:
            break
        killed += 1
    else:
        raise AssertionError("it never came to its end")
    assert killed >= 2
    for name in ("model", "checkpoint", "history.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def test_ctrl_c_saves_and_resumes_to_the_same_bits(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert end(start(whole, "arrays")) == (0, "")
    interrupted = 0
    for delay in (0.0, 0.03, 0.07, None):
        process = start(broken, "arrays")
        path = broken / "checkpoint"
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        while delay is not None and process.poll() is None:
            if path.exists() and path.stat().st_mtime_ns != stamp:
                time.sleep(delay)
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.001)
        code, errors = end(process)
        if code:
            assert "KeyboardInterrupt" in errors.splitlines()[-1]
            interrupted += 1
    assert interrupted >= 1
    for name in ("model", "checkpoint", "history.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def test_ctrl_c_outside_of_fit_is_pythons_own(tmp_path):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = compiled(seed_like)
    model.fit(*images(20), progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
