"""The Keras verbs of `nn.Sequential`: compile, fit, evaluate, predict, save."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stapes import ops
from stapes.device import Array, array_module, is_cupy, to_device
from stapes.nn.chain import _Chain
from stapes.ops._args import unsigned
from stapes.train import metrics as _metrics
from stapes.train.batches import as_inputs, check_alike, unaugmented
from stapes.train.callbacks import Callback, History, check_callbacks
from stapes.train.compiled import LossLike, MetricLike, compile_model
from stapes.train.engine import Engine
from stapes.train.runtime import Runtime

if TYPE_CHECKING:
    from stapes.optim import Optimizer


class KerasVerbs(Engine):
    """Training, evaluation and prediction of a chain of layers; see `Sequential`."""

    stop_training: bool = False
    history: History | None = None
    _run_of_fit: Any = None

    # Training.

    def compile(
        self,
        optimizer: str | Optimizer = "adam",
        loss: LossLike = "cross_entropy",
        metrics: Iterable[MetricLike] | None = None,
        *,
        device: str | Runtime = "auto",
        precision: str = "fp32",
        fuse: bool = True,
    ) -> None:
        """Choose optimizer, loss and metrics, and plan the step.

        The plan runs Conv2d + ReLU + MaxPool2d (stride = kernel, no padding), Conv2d + ReLU and
        Linear + ReLU in one kernel each, and keeps every buffer for the next batch of the same
        shape; there is a plan for each shape. Weights are converted to the precision. Layers
        that are added or removed afterwards ask for `compile` again.

        On CUDA the whole step, from the batch to the new weights, is one CUDA graph for each shape
        of a batch: its first step runs kernel by kernel, its second is captured, and from then on
        the graph is launched. Batches come by two pinned buffers in turn, beside the step before;
        numbers are read a few steps late, without waiting. Once a loss is not finite no weight is
        changed any more, so the error, some steps later, finds the weights as they were.

        Parameters
        ----------
        optimizer : {"adam", "adamw", "sgd"} or Optimizer
            Names stand for the defaults of `stapes.optim`; "sgd" has lr 0.01.
        loss : str or callable
            "cross_entropy" (class ids or probabilities), "categorical_crossentropy" (one-hot),
            "sparse_categorical_crossentropy" (ids), "mse", or ``loss, grad = f(output, target)``.
            With cross-entropy the network's outputs are logits; a final Softmax is merged into
            the loss, and `predict` applies softmax exactly once either way.
        metrics : list, optional
            "accuracy", "balanced_accuracy", "mse", "mae", or callables ``f(output, target)`` that
            get what `predict` gives. None: accuracy with cross-entropy, else nothing.
        device : {"auto", "cpu", "cuda", "cuda:N"} or Runtime
            "auto": CUDA where the build and the machine have it. The network is moved there.
        precision : str
            "fp32"; "fp64" on the CPU only. On CUDA also "fp32_split" (float32 by three products of
            TF32 on tensor cores), "tf32" (float32, products rounded to TF32), and "bf16" and
            "fp16": activations and copies of the weights in 16 bit, sums, biases, statistics,
            gradients of weights and the weights themselves in float32; in fp16 the loss is
            scaled, and steps that overflow are left out. All but "fp32" and "fp16" need compute
            capability 8.0.
        fuse : bool
            False: one kernel for each layer, for comparison.

        Raises
        ------
        ValueError
            For a name that is not known, or a device or precision that is not there.
        TypeError
            For an argument of another type.
        """
        self._compiled = compile_model(self, optimizer, loss, metrics, device, precision, fuse)
        self._probabilities = self._compiled.entropy
        self._inference = None

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        progress: bool = True,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for some epochs.

        Parameters
        ----------
        x : array or data object
            (N, ...), converted to the precision batch by batch; or a `stapes.data` object, whose
            classes, features and clip length the model then carries.
        y : array, optional
            Class ids (N,), probabilities (N, classes), or what an MSE's outputs should be.
        batch_size : int
            The last batch of an epoch may be smaller, and is trained on too.
        epochs : int
            In all, those before ``resume`` included.
        validation_data : (x, y) or data object, optional
            Evaluated after each epoch.
        callbacks : list of Callback
            See `stapes.train`.
        seed : int
            Of the order of samples and of augmentation: epoch ``e`` draws from
            ``SeedSequence([seed, e])``.
        progress : bool
            Show a bar on stderr, or a line for each epoch where that is no terminal.
        resume : path, optional
            A checkpoint of a `stapes.train.Checkpoint` to go on from, with the same network,
            data, seed, batch size and callbacks; the final bits are those of an unbroken run.

        Returns
        -------
        History
            Lists of ``loss``, ``<metric>``, ``val_loss``, ``val_<metric>``: means over samples.

        Raises
        ------
        RuntimeError
            Before `compile`, or where layers were changed after it.
        ValueError, TypeError
            If x or y does not fit the network and the loss.
        DivergedError
            If the loss or a weight becomes NaN or infinite: names epoch, step and layer. A
            checkpoint keeps the last good state. (It is a FloatingPointError.)
        KeyboardInterrupt
            After Ctrl-C, once a checkpoint is written where there is a `Checkpoint`.
        """
        from stapes.train.loop import Run

        _positive("fit", batch_size=batch_size, epochs=epochs)
        unsigned("fit", "seed", seed)
        check_callbacks(callbacks)
        source = self._source(x, y, "fit")
        validation = None
        if validation_data is not None:
            validation = self._validation(validation_data, source)
        self._adopt_data(source)
        run = Run(
            self,
            source,
            batch_size=batch_size,
            epochs=epochs,
            validation=validation,
            callbacks=callbacks,
            seed=seed,
            progress=progress,
        )
        self.stop_training, self.history, self._run_of_fit = False, run.history, run
        try:
            with self._mode(training=True):
                return run.train(resume)
        finally:
            self._run_of_fit = None

    def train_on_batch(self, x: Any, y: Any) -> dict[str, float]:
        """Do one step on a batch.

        Returns
        -------
        dict
            ``loss`` (before the step) and metrics of the batch.

        Raises
        ------
        RuntimeError, ValueError, TypeError, DivergedError
            As `fit`.
        """
        x = as_inputs(x, "train_on_batch")
        if not len(x):
            raise ValueError("train_on_batch: there are no samples")
        with self._mode(training=True):
            pending = self._step(x, y, "train_on_batch")
            pending.wait()
        compiled = self._compiled
        assert compiled is not None, "_step begins by _ready"
        made = compiled.new_metrics()
        self._measure(made, pending.output, pending.target)
        return {"loss": pending.loss, **_metrics.results(made)}

    # Evaluation and prediction.

    def evaluate(self, x: Any, y: Any = None, *, batch_size: int = 32) -> dict[str, float]:
        """Return loss and metrics over arrays or a data object, without training.

        Raises
        ------
        RuntimeError, ValueError, TypeError
            As `fit`; also ValueError where a data object has other classes than the model.
        """
        _positive("evaluate", batch_size=batch_size)
        source = self._source(x, y, "evaluate")
        check_alike("evaluate", source, self)
        return self._evaluate(source, batch_size, lambda: None)

    def predict(self, x: Any, *, batch_size: int = 32) -> Array:
        """Return class probabilities (cross-entropy, or a final Softmax), else the outputs.

        BatchNorm2d is folded into the convolution before it, so that the last bits may differ from
        those by which `evaluate` judges.

        Parameters
        ----------
        x : array or data object
            (N, ...), converted to the dtype of the weights.
        batch_size : int
            Samples computed at a time.

        Returns
        -------
        array
            (N, ...), new; a CuPy array where ``x`` is one.
        """
        _positive("predict", batch_size=batch_size)
        if hasattr(x, "batches"):
            x = unaugmented(x)
            check_alike("predict", x, self)
            batches = (b for b, _ in x.batches(batch_size, shuffle=False, seed=0))
        else:
            x = as_inputs(x, "predict")
            batches = (x[i : i + batch_size] for i in range(0, max(len(x), 1), batch_size))
        with self._predicting() as predict:
            found = [predict(batch) for batch in batches]
        return array_module(found[0]).concatenate(found)

    def predict_on_batch(self, x: Any) -> Array:
        """As `predict`, all at once."""
        with self._predicting() as predict:
            return predict(x)

    @contextmanager
    def _predicting(self) -> Iterator[Callable[[Any], Array]]:
        """Give what `predict` does with a batch; weights stay as they are within the block."""
        with self._scope(), self._mode(training=False):
            plan = self._plan()
            plan.refold()

            def predict(x: Any) -> Array:
                x = as_inputs(x, "predict")
                return self._returned(self._finish(self._run_plan(plan, self._batch(x))), x)

            yield predict

    def extract(self, x: Any, layer: int | str) -> Array:
        """Return the activations of a layer for a batch, in inference mode.

        Parameters
        ----------
        x : array
            (N, ...).
        layer : int or str
            Its place in ``layers`` (-1 is the last), or its name as in `summary`: ``"3"``, and
            ``"2.0"`` for a layer within layer 2.

        Raises
        ------
        ValueError, TypeError
            If there is no such layer.
        """
        path = self._layer_path(layer)
        given = as_inputs(x, "extract")
        with self._scope(), self._mode(training=False):
            plan = self._plan()
            x = self._input(self._batch(given))
            plan.refresh()
            x = plan.entering(x)
            chain: _Chain = self
            for depth, place in enumerate(path):
                for before in chain.layers[:place]:
                    x = before.forward(x)
                if depth < len(path) - 1:
                    chain = chain.layers[place]  # type: ignore[assignment]
            y = chain.layers[path[-1]].forward(x)
            y = y.copy() if plan.rounded is None else ops.cast(y, np.float32)
        return self._returned(y, given)

    def _returned(self, y: Array, x: Any) -> Array:
        """Return a new array where ``x`` is: on the host, or for CuPy's current stream."""
        if is_cupy(x):
            return y.copy()  # what our stream works with may be used again by it
        return to_device(y, "cpu")

    def predict_files(
        self, paths: Iterable[str | os.PathLike[str]], *, windows: bool = False
    ) -> list[dict[str, Any]]:
        """Classify sound files; see `stapes.train.files.predict_files`."""
        from stapes.train.files import predict_files

        return predict_files(self, paths, windows=windows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one .safetensors file, atomically; see `stapes.model_file`.

        It holds weights, architecture, features, class names and clip length; `stapes.load` reads
        it. The same model gives the same bytes.

        Raises
        ------
        RuntimeError
            If the weights are not there yet: build, or run forward once.
        OSError
            If the file cannot be written; what was there before is unchanged.
        """
        from stapes.model_file import save

        save(self, path)

    def _layer_path(self, layer: int | str) -> list[int]:
        text = str(layer).split(".")
        path: list[int] = []
        chain: Any = self
        for part in text:
            count = len(chain.layers) if isinstance(chain, _Chain) else 0
            if isinstance(layer, bool) or not part.removeprefix("-").isdecimal():
                raise TypeError(f"extract: layer must be a place or a name, got {layer!r}")
            place = int(part)
            if not -count <= place < count:
                raise ValueError(f"extract: there is no layer {layer!r}; see summary()")
            path.append(place % count)
            chain = chain.layers[place]
        return path


def _positive(what: str, **numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{what}: {name} must be a positive integer, got {value!r}")
