"""Layers one after another: what `Sequential` and `Residual` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from stapes.device import Array, as_input
from stapes.nn.layer import Layer, Shape, from_config
from stapes.nn.parameter import Parameter


class _Chain(Layer):
    """Layers one after another; layer ``i``'s names begin with ``"i."``.

    Parameters
    ----------
    *layers : Layer
        Each object at most once; containers may be nested.
    seed : int, optional
        The network's seed: what layers without a seed of their own draw from, each by its place.

    Attributes
    ----------
    layers : list of Layer
        May be changed.
    input_shape : tuple of int or None
        Of the last `build`, which the first `forward` does by itself.
    """

    def __init__(self, *layers: Layer, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.layers: list[Layer] = list(layers)
        self.input_shape: Shape | None = None
        self._fitting: set[tuple[Any, ...]] = set()  # what forward need not check again
        self._refresh()

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:
        return self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __repr__(self) -> str:
        inner = ", ".join(map(repr, self.layers))
        return f"{type(self).__name__}({inner})"

    # Places, names and seeds of the layers.

    def _refresh(self) -> None:
        """Give every layer its place anew, since ``layers`` may have been changed."""
        seen: set[int] = set()
        for layer in self._walk():
            if not isinstance(layer, Layer):
                raise TypeError(f"{self._label()}: {layer!r} is not a layer")
            if id(layer) in seen:
                raise ValueError(f"{layer!r} is in {self._label()} twice: make two layers")
            seen.add(id(layer))
        self._adopt(self._path, self._model_seed)

    def _walk(self) -> Iterator[Layer]:
        for layer in self.layers:
            yield layer
            if isinstance(layer, _Chain):
                yield from layer._walk()

    def _adopt(self, path: tuple[int, ...], model_seed: int) -> None:
        self._path, self._model_seed = path, model_seed
        for i, layer in enumerate(self.layers):
            layer._adopt((*path, i), model_seed if self.seed is None else self.seed)

    # Shapes and building.

    def shapes(self, input_shape: Shape) -> list[Shape]:
        """Return the input's shape and that of each layer's output, without N.

        Raises
        ------
        ValueError
            Where a layer does not take what it gets: names its place, type and both shapes.
        """
        result = [tuple(int(n) for n in input_shape)]
        for layer in self.layers:
            result.append(layer.output_shape(result[-1]))
        return result

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.shapes(input_shape)[-1]

    def flops(self, input_shape: Shape) -> int:
        return sum(
            layer.flops(s) for layer, s in zip(self.layers, self.shapes(input_shape), strict=False)
        )

    def build(self, input_shape: Shape, seed: int | None = None) -> Shape:
        """Infer open sizes and draw the weights that are not drawn yet.

        Parameters
        ----------
        input_shape : tuple of int
            A sample's shape, for example (H, W, C) = (frames, bands, 1).
        seed : int, optional
            Becomes the network's seed, and all weights are drawn (again) from it. Layers with
            a seed of their own keep to that.

        Returns
        -------
        tuple of int
            The output's shape, without N.

        Raises
        ------
        ValueError
            If a layer does not take what it gets: names its place, type and both shapes.
        """
        self._refresh()
        shapes = self.shapes(input_shape)
        if seed is not None:
            self.seed = seed
            self._refresh()
            self._reset()
        for layer, shape in zip(self.layers, shapes, strict=False):
            layer.build(shape)
        self.input_shape = shapes[0]
        self._built = True
        return shapes[-1]

    def _reset(self) -> None:
        super()._reset()
        for layer in self.layers:
            layer._reset()

    def _materialise(self) -> None:
        self._refresh()
        for layer in self.layers:
            layer._materialise()

    def _input(self, x: Array) -> Array:
        """Return x as an array; layers are built, and shapes checked, once for each input shape."""
        x = as_input(self._label(), "x", x)
        key = (x.shape[1:], *map(id, self.layers))
        if key not in self._fitting:
            self.build(x.shape[1:])
            self._fitting.add(key)
        return x

    # Computing.

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        """Overwrite every parameter's ``grad`` and return dx.

        Parameters
        ----------
        dy : array
            Gradient of the output of the last `forward`.
        need_dx : bool
            False: the gradient is not carried below the first layer with weights; None is returned.

        Raises
        ------
        RuntimeError
            Unless called once after a `forward` in training mode.
        """
        last_needed = 0 if need_dx else self._first_trained()
        grad: Array | None = dy
        for i in reversed(range(len(self.layers))):
            if i < last_needed:
                self.layers[i].release()
            else:
                grad = self.layers[i].backward(grad, need_dx=need_dx or i > last_needed)
        return grad if need_dx else None

    def _first_trained(self) -> int:
        """Return the first layer with weights (the last layer if there are none)."""
        trained = (i for i, layer in enumerate(self.layers) if layer.parameters())
        return next(trained, len(self.layers) - 1)

    # State.

    def parameters(self) -> list[Parameter]:
        self._materialise()
        return [p for layer in self.layers for p in layer.parameters()]

    def buffers(self) -> dict[str, Array]:
        self._materialise()
        return self._gather(lambda layer: layer.buffers())

    def _tensors(self) -> dict[str, Parameter | Array]:
        self._materialise()
        return self._gather(lambda layer: layer._tensors())

    def random_state(self) -> dict[str, int]:
        return self._gather(lambda layer: layer.random_state())

    def _load_random_state(self, state: Mapping[str, int]) -> None:
        for i, layer in enumerate(self.layers):
            prefix = f"{i}."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            layer._load_random_state(own)

    def _gather(self, part: Callable[[Layer], Mapping[str, Any]]) -> dict[str, Any]:
        return {
            f"{i}.{name}": value
            for i, layer in enumerate(self.layers)
            for name, value in part(layer).items()
        }

    # Modes, dtype, device.

    def train(self) -> Self:
        for layer in self.layers:
            layer.train()
        return super().train()

    def eval(self) -> Self:
        for layer in self.layers:
            layer.eval()
        return super().eval()

    def release(self) -> None:
        super().release()
        for layer in self.layers:
            layer.release()

    def astype(self, dtype: Any) -> Self:
        super().astype(dtype)
        for layer in self.layers:
            layer.astype(dtype)
        return self

    def to(self, device: str) -> Self:
        super().to(device)
        for layer in self.layers:
            layer.to(device)
        return self

    # Description.

    def config(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "seed": self.seed,
            "layers": [layer.config() for layer in self.layers],
        }

    @classmethod
    def _from_config(cls, arguments: dict[str, Any]) -> Layer:
        layers = arguments.pop("layers", None)
        if not isinstance(layers, list):
            raise ValueError(f"from_config: {cls.__name__}: layers must be a list, got {layers!r}")
        return cls(*(from_config(c) for c in layers), **arguments)
