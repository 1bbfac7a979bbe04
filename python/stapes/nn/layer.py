"""What every layer is: parameters, buffers, state, seeds and the error for a wrong shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from stapes import _core
from stapes.device import Array, as_input, device_of, to_device
from stapes.nn._args import freeze, thaw
from stapes.nn.parameter import WEIGHT_DTYPES, Parameter

Shape = tuple[int, ...]
"""A sample's shape, without N: (H, W, C), (L, C) or (features,)."""


class Layer:
    """Base class of all layers; subclass it for your own.

    A subclass keeps its constructor's arguments in attributes of the same names (`config` and
    ``repr`` read them there) and defines `output_shape`, `forward` and `backward`; one with weights
    also `_init_weights`. Every subclass is known to `from_config` by its class name.

    Parameters
    ----------
    seed : int, optional
        Seed of the layer's random numbers. None: drawn from the network's seed (0 by default) and
        the layer's place in it, so that every layer has a stream of its own and the same network
        with the same seed gets the same weights.

    Attributes
    ----------
    training : bool
        True at first; set by `train` and `eval`.
    """

    _types: ClassVar[dict[str, type[Layer]]] = {}

    def __init__(self, *, seed: int | None = None) -> None:
        self.seed = seed
        self.training = True
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.device = "cpu"
        self._path: tuple[int, ...] = ()  # place in the outermost container
        self._model_seed = 0
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Array] = {}
        self._built = False
        self._saved: Any = None  # what forward keeps for backward
        self._plan_slots: dict[str, Any] | None = None  # see _run

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name, package = cls.__name__, "stapes."
        if name.startswith("_") or cls.__module__.startswith("stapes.train."):
            return  # no layer of a saved network
        own = Layer._types.get(name)
        if own and own.__module__.startswith(package) and not cls.__module__.startswith(package):
            raise TypeError(f"{name} is a layer of stapes: saved networks need another name")
        Layer._types[name] = cls

    # What a subclass defines.

    def forward(self, x: Array) -> Array:
        """Compute the output; in training mode, keep what `backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        """Overwrite every parameter's ``grad`` and return dx (None where not needed).

        Parameters
        ----------
        dy : array
            Gradient of the output of the last `forward`.
        need_dx : bool
            False saves the work of computing the gradient of the input.

        Raises
        ------
        RuntimeError
            Unless called once after a `forward` in training mode.
        """
        raise NotImplementedError

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of a sample's output, without N.

        Raises
        ------
        ValueError
            If the layer does not take this input; the error tells the layer's place and type.
        """
        raise NotImplementedError

    def _infer(self, input_shape: Shape) -> None:
        """Take sizes that were left None from the first input."""

    def _init_weights(self) -> None:
        """Fill ``_parameters`` and ``_buffers``; RuntimeError while a size is not known."""

    def flops(self, input_shape: Shape) -> int:
        """Return the floating-point operations of a sample's forward: 2 for each multiply-add.

        Layers that multiply no weights count as 0.
        """
        return 0

    # Building.

    def build(self, input_shape: Shape, seed: int | None = None) -> Shape:
        """Infer open sizes, draw the weights if there are none yet, and return the output's shape.

        Parameters
        ----------
        input_shape : tuple of int
            A sample's shape: (H, W, C), (L, C) or (features,).
        seed : int, optional
            Draw (again) from this seed.

        Raises
        ------
        ValueError
            If the layer does not take this input.
        """
        shape = tuple(int(n) for n in input_shape)
        if any(n < 0 for n in shape):
            raise ValueError(f"{self._label()}: input_shape must not be negative, got {shape}")
        result = self.output_shape(shape)
        self._infer(shape)
        if seed is not None:
            self.seed = seed
            self._reset()
        self._materialise()
        return result

    def _reset(self) -> None:
        """Forget the weights, so that they are drawn again when they are next needed."""
        self._parameters.clear()
        self._buffers.clear()
        self._built = False

    def _materialise(self) -> None:
        if not self._built:
            self._init_weights()
            self._built = True

    def _adopt(self, path: tuple[int, ...], model_seed: int) -> None:
        """Take a place in a network: names and seeds follow from it."""
        self._path, self._model_seed = path, model_seed
        for name, p in self._parameters.items():
            p.name = self._full_name(name)

    def _seed_sequence(self) -> np.random.SeedSequence:
        if self.seed is not None:
            return np.random.SeedSequence(self.seed)
        return np.random.SeedSequence(self._model_seed, spawn_key=self._path)

    def _add_parameter(self, name: str, values: np.ndarray[Any, Any]) -> None:
        data = to_device(values.astype(self.dtype), self.device)
        self._parameters[name] = Parameter(data, self._full_name(name))

    def _he_uniform(self, shape: Shape, fan_in: int) -> np.ndarray[Any, Any]:
        """Uniform in ±sqrt(6 / fan_in): He et al., Delving Deep into Rectifiers, 2015.

        Drawn in float64, so that float32 weights are the float64 ones rounded.
        """
        bound = np.sqrt(6.0 / max(fan_in, 1))
        return np.random.default_rng(self._seed_sequence()).uniform(-bound, bound, shape)

    # State.

    def parameters(self) -> list[Parameter]:
        """Return the trained weights, in torch's order.

        Raises
        ------
        RuntimeError
            While a size is not known.
        """
        self._materialise()
        return list(self._parameters.values())

    def buffers(self) -> dict[str, Array]:
        """Return the arrays that belong to the state but are not trained, by name."""
        self._materialise()
        return dict(self._buffers)

    def _tensors(self) -> dict[str, Parameter | Array]:
        """Parameters and buffers by their names within this layer."""
        self._materialise()
        return {**self._parameters, **self._buffers}

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all weights and buffers by their names within this layer."""
        return {
            name: (t._data if isinstance(t, Parameter) else t).copy()
            for name, t in self._tensors().items()
        }

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Overwrite all weights and buffers; where anything does not fit, nothing is changed.

        Values of any floating dtype are converted to the layer's. torch's ``num_batches_tracked``
        is skipped.

        Raises
        ------
        ValueError
            If names are missing or unexpected, or a shape differs; all of them are told.
        TypeError
            If a value is no array of floating-point numbers.
        """
        targets = self._tensors()
        given = {k: v for k, v in state.items() if k.rpartition(".")[2] != "num_batches_tracked"}
        arrays = {name: _floating(name, given[name]) for name in targets if name in given}
        problems = _differences(targets, given, arrays)
        if problems:
            raise ValueError(f"{self._label()}: load_state_dict: " + "; ".join(problems))
        for name, value in arrays.items():
            target = targets[name]
            if isinstance(target, Parameter):
                target.assign(value)
            else:
                target[...] = to_device(value, device_of(target))

    def random_state(self) -> dict[str, int]:
        """Return what a checkpoint keeps of the random numbers drawn so far (dropout's offsets)."""
        return {}

    def load_random_state(self, state: Mapping[str, int]) -> None:
        """Go back to a `random_state`.

        Raises
        ------
        ValueError
            If it is that of another network.
        """
        if set(state) != set(self.random_state()):
            raise ValueError(
                f"{self._label()}: load_random_state: names must be"
                f" {sorted(self.random_state())}, got {sorted(state)}"
            )
        self._load_random_state(state)

    def _load_random_state(self, state: Mapping[str, int]) -> None:
        """Take over values under names that are known to fit."""

    # Modes, dtype, device.

    def train(self) -> Self:
        """Switch to training: `forward` keeps what `backward` needs."""
        self.training = True
        return self

    def eval(self) -> Self:
        """Switch to inference: nothing is kept, dropout is off, running statistics are used."""
        self.training = False
        self.release()
        return self

    def release(self) -> None:
        """Let go of what the last `forward` kept for `backward`."""
        self._saved = None

    def astype(self, dtype: Any) -> Self:
        """Convert weights and buffers to float32 or float64, in place; gradients are dropped.

        Raises
        ------
        TypeError
            For any other dtype.
        """
        dtype = np.dtype(dtype)
        if dtype not in WEIGHT_DTYPES:
            raise TypeError(f"{self._label()}: weights are float32 or float64, not {dtype}")
        self.dtype = dtype
        return self._convert(lambda a: a.astype(dtype))

    def to(self, device: str) -> Self:
        """Move weights and buffers to ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; gradients are dropped.

        Raises
        ------
        ValueError
            If there is no such device name.
        RuntimeError
            If CuPy or the device is missing.
        """
        probe = to_device(np.empty(0, self.dtype), device)  # fails before anything is moved
        self.device = device_of(probe)
        return self._convert(lambda a: to_device(a, device))

    def _convert(self, change: Any) -> Self:
        self.release()
        for p in self._parameters.values():
            p.replace(change(p._data))
        for name, buffer in self._buffers.items():
            self._buffers[name] = change(buffer)
        return self

    # Description.

    def config(self) -> dict[str, Any]:
        """Return type and arguments, JSON-able: `stapes.nn.from_config` builds the layer again."""
        return {
            "type": type(self).__name__,
            **{name: thaw(self._argument(name)) for name in self._arguments()},
        }

    def _argument(self, name: str) -> Any:
        """Return a constructor argument; the attribute of this name unless a subclass differs."""
        return getattr(self, name)

    @classmethod
    def _from_config(cls, arguments: dict[str, Any]) -> Layer:
        return cls(**{name: freeze(value) for name, value in arguments.items()})

    @classmethod
    def _arguments(cls) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(cls).parameters

    def __repr__(self) -> str:
        shown = [
            f"{name}={value!r}"
            for name, p in self._arguments().items()
            if (value := self._argument(name)) != p.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __call__(self, x: Array) -> Array:
        """Run `forward`."""
        return self.forward(x)

    # For subclasses.

    def _label(self) -> str:
        """Place and type, for errors: ``layer 2.0 (Conv2d)``."""
        kind = type(self).__name__
        return f"layer {'.'.join(map(str, self._path))} ({kind})" if self._path else kind

    def _full_name(self, name: str) -> str:
        return ".".join([*map(str, self._path), name])

    def _input(self, x: Array) -> Array:
        """Return x as an array, and build at the first one."""
        x = as_input(self._label(), "x", x)
        if x.ndim < 1:
            raise ValueError(f"{self._label()}: x must have a batch axis, got shape {x.shape}")
        if not self._built:
            self.build(x.shape[1:])
        return x

    def _keep(self, *saved: Any) -> None:
        """Keep what `backward` needs, in training mode only."""
        self._saved = saved if self.training else None

    def _kept(self) -> Any:
        """Return what was kept, once.

        Raises
        ------
        RuntimeError
            If there is nothing.
        """
        if self._saved is None:
            raise RuntimeError(
                f"{self._label()}: backward must be called once after each forward in train() mode"
            )
        saved, self._saved = self._saved, None
        return saved

    def _known(self, name: str, value: int | None) -> int:
        if value is None:
            raise RuntimeError(
                f"{self._label()}: {name} is not known yet; give it, call build(input_shape), or"
                " run forward once"
            )
        return value

    def _run(self, slot: str, op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run an operator; within a plan, into the arrays of the last time.

        Parameters
        ----------
        slot : str
            Names the results within this layer.
        op : callable
            Takes ``out=``.
        """
        return self._put(slot, op(*args, **kwargs, out=self._slot(slot)))

    def _run_array(self, slot: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `_run`, for a function that is no operator; a step that is recorded does it again."""
        y = self._run(slot, function, *args, **kwargs)
        _core.note(function, args, {**kwargs, "out": y})
        return y

    def _slot(self, slot: str) -> Any:
        """Return what was `_put` for this input shape the last time, or None."""
        return None if self._plan_slots is None else self._plan_slots.get(slot)

    def _put(self, slot: str, result: Any) -> Any:
        """Keep an operator's result to be written over the next time, within a plan."""
        if self._plan_slots is not None:
            self._plan_slots[slot] = result
        return result

    def _sized(self, shape_of: Callable[..., Any], input_shape: Shape, *arguments: Any) -> Shape:
        """Ask the operators' own formula for an output's shape."""
        try:
            y = shape_of(self._label(), (1, *input_shape), *arguments)
        except ValueError as e:
            raise ValueError(f"{e}; input {input_shape} to {self!r}") from None
        return tuple(y[1:])

    def _expect(self, ok: bool, layout: str, got: Shape, hint: str = "") -> None:
        if not ok:
            raise ValueError(
                f"{self._label()}: takes inputs of shape {layout} without N, got {got}{hint}"
            )


def from_config(config: Mapping[str, Any]) -> Layer:
    """Build a layer, or a whole `Sequential`, from its ``config()``.

    Parameters
    ----------
    config : dict
        ``{"type": class name, argument: value, ...}``.

    Returns
    -------
    Layer
        With new weights: load them with ``load_state_dict``.

    Raises
    ------
    ValueError
        If the type is not known or the arguments do not fit it.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if not isinstance(kind, str) or kind not in Layer._types:
        raise ValueError(f"from_config: type must be one of {sorted(Layer._types)}, got {kind!r}")
    try:
        return Layer._types[kind]._from_config(arguments)
    except TypeError as e:
        raise ValueError(f"from_config: {kind}: {e}") from e


def _floating(name: str, value: Any) -> Array:
    array = as_input("load_state_dict", name, value)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"load_state_dict: {name} must be floating-point, got {array.dtype}")
    return array


def _differences(
    targets: Mapping[str, Any], given: Mapping[str, Any], arrays: Mapping[str, Array]
) -> list[str]:
    """Say in words how the names and shapes differ."""
    problems = []
    if missing := [n for n in targets if n not in given]:
        problems.append(f"missing {', '.join(missing)}")
    if unexpected := [n for n in given if n not in targets]:
        problems.append(f"unexpected {', '.join(map(str, unexpected))}")
    for name, value in arrays.items():
        if tuple(value.shape) != tuple(targets[name].shape):
            problems.append(
                f"{name} must have shape {tuple(targets[name].shape)}, got {tuple(value.shape)}"
            )
    return problems
