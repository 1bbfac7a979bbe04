"""The network, and the block with a way around it."""

from __future__ import annotations

from stapes.device import Array, array_module, as_input
from stapes.nn._args import size
from stapes.nn.chain import _Chain
from stapes.nn.layer import Shape
from stapes.nn.summary import summary_text
from stapes.train.verbs import KerasVerbs


class Sequential(KerasVerbs):
    """A network: layers one after another.

    Parameters
    ----------
    *layers : Layer
        Each object at most once; containers may be nested.
    seed : int, optional
        The network's seed (0 by default): what layers without a seed of their own draw from, each
        by its place, so that the same network with the same seed gets the same weights.

    Attributes
    ----------
    layers : list of Layer
        May be changed.
    input_shape : tuple of int or None
        Of the last `build`, which the first `forward` does by itself.
    classes : list of str or None
        Class names; `fit` takes them from a data object, and `save` keeps them.
    features : Features or None
        What turns sound into the network's input, from the same place.
    clip_seconds : float or None
        Length of the clips it was trained on, likewise.
    history : History or None
        Of the last `fit`.
    optimizer : Optimizer or None
        What `compile` was given; its ``lr`` may be assigned, in a callback too.
    stop_training : bool
        A callback sets it to end `fit` after the epoch.

    Examples
    --------
    >>> from stapes import nn
    >>> net = nn.Sequential(nn.Conv2d(None, 8, 3, padding="same"), nn.ReLU(),
    ...                     nn.GlobalAvgPool2d(), nn.Linear(None, 2))
    >>> net.build((100, 64, 1), seed=0)
    (2,)
    >>> [p.name for p in net.parameters()]
    ['0.weight', '0.bias', '3.weight', '3.bias']
    """

    def summary(self, input_shape: Shape | None = None, *, batch_size: int = 32) -> str:
        """Print, and return, a table: layer, output shape, parameters, MFLOP a sample.

        Of a network compiled for the CPU it also tells what a training step needs of memory.

        Parameters
        ----------
        input_shape : tuple of int, optional
            A sample's shape; that of the last `build` or `forward` by default.
        batch_size : int
            Of the step.

        Raises
        ------
        RuntimeError
            If the input's shape is not known.
        ValueError
            If ``batch_size`` is below 1.
        """
        size("summary", "batch_size", batch_size)
        shape = self.input_shape if input_shape is None else input_shape
        if shape is None:
            raise RuntimeError("summary: the input's shape is not known: pass it, or build first")
        self.build(shape)
        text = summary_text(self, self.shapes(shape))
        compiled = self._compiled
        if compiled is not None and compiled.plan.is_current() and self.device == "cpu":
            from stapes.train.memory import step_memory

            needs = step_memory(self, compiled, shape, batch_size)
            text += (
                f"\na training step of {batch_size} samples: {needs.total / 2**20:,.1f} MiB"
                f" ({needs.weights / 2**20:,.1f} weights, gradients and optimizer,"
                f" {needs.buffers / 2**20:,.1f} buffers)"
            )
        print(text)
        return text


class Residual(_Chain):
    """``x + layers(x)``: the layers must keep the shape. He et al., Deep Residual Learning, 2015.

    Parameters
    ----------
    *layers : Layer
    seed : int, optional
        For layers without a seed of their own; the network's by default.
    """

    def shapes(self, input_shape: Shape) -> list[Shape]:
        result = super().shapes(input_shape)
        if result[-1] != result[0]:
            raise ValueError(
                f"{self._label()}: the layers must keep the shape of their input {result[0]},"
                f" but give {result[-1]}"
            )
        return result

    def forward(self, x: Array) -> Array:
        x = self._input(x)
        y = super().forward(x)
        return self._run_array("sum", array_module(y).add, x, y)

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        dy = as_input(self._label(), "dy", dy)
        dx = super().backward(dy, need_dx)
        return None if dx is None else self._run_array("dx", array_module(dy).add, dx, dy)
