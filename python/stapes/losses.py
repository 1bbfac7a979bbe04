"""Losses: each call returns the loss and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from stapes import ops
from stapes.device import Array, as_input, device_of, to_device, wide_dtype
from stapes.ops._args import integer, number


class CrossEntropyLoss:
    """Cross-entropy of softmax(output), mean over the batch, as PyTorch's.

    Parameters
    ----------
    weight : array of shape (classes,), optional
        Weight of each class. The mean divides by the summed weight of the targets.
    label_smoothing : float
        In [0, 1]: this much of each target is spread over all classes.
    ignore_index : int
        Class id of targets that do not count.
    """

    def __init__(
        self,
        weight: Array | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        if weight is not None:
            weight = np.asarray(weight) if isinstance(weight, list | tuple) else weight
            weight = as_input("CrossEntropyLoss", "weight", weight)
            if weight.ndim != 1 or not bool((weight >= 0).all()):
                raise ValueError(
                    "CrossEntropyLoss: weight must be one number of at least 0 a class, got shape"
                    f" {weight.shape}"
                )
        self.weight = weight
        self._kept: tuple[Array, str, np.dtype[Any], Array] | None = None  # see _weight_beside
        self.label_smoothing = number("CrossEntropyLoss", "label_smoothing", label_smoothing)
        self.ignore_index = integer("CrossEntropyLoss", "ignore_index", ignore_index)
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(
                f"CrossEntropyLoss: label_smoothing must be in [0, 1], got {label_smoothing}"
            )

    def __call__(self, output: Array, target: Array) -> tuple[Any, Array]:
        """Return the loss and its gradient.

        Parameters
        ----------
        output : array of shape (N, classes)
            Logits (no softmax applied).
        target : array of shape (N,) or (N, classes)
            Class ids, int32 or int64; or probabilities, for example one-hot.

        Returns
        -------
        loss : 0-d array
        grad : array
            Shape and dtype of ``output``.

        Raises
        ------
        ValueError
            If shapes do not fit, or a class id is out of range.
        TypeError
            If a dtype is not one of these.
        """
        output = as_input("CrossEntropyLoss", "output", output)
        loss, saved = ops.cross_entropy_fwd(
            output,
            target,
            weight=self._weight_beside(output),
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )
        return loss, ops.cross_entropy_bwd(saved)

    def _weight_beside(self, output: Array) -> Array | None:
        """Return the weight on the output's device and in the dtype it is computed with."""
        if self.weight is None:
            return None
        device, dtype = device_of(output), wide_dtype(output)
        kept = self._kept
        if kept is None or kept[0] is not self.weight or kept[1:3] != (device, dtype):
            kept = self.weight, device, dtype, to_device(self.weight, device).astype(dtype)
            self._kept = kept
        return kept[3]


class MSELoss:
    """Squared difference, mean over all elements."""

    def __call__(self, output: Array, target: Array) -> tuple[Any, Array]:
        """Return the loss and its gradient.

        Parameters
        ----------
        output, target : array
            Of the same shape and dtype.

        Returns
        -------
        loss : 0-d array
        grad : array
            Shape and dtype of ``output``.

        Raises
        ------
        ValueError, TypeError
            If shapes or dtypes differ.
        """
        return ops.mse_fwd(output, target), ops.mse_bwd(output, target)
