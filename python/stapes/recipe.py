"""How the command line trains unless it is told otherwise: every number of it is here.

The numbers were chosen by cross-validation on recordings of several kinds; what depends on the data
(number of epochs, weights of the classes) is computed from the data alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stapes.data import Augment
from stapes.data._types import Ints
from stapes.losses import CrossEntropyLoss
from stapes.optim import AdamW, CosineLR, WarmupLR


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule, length, loss and augmentation of a training run.

    AdamW, with a rate that rises in a line and falls by half a cosine to 0 at the last step.

    Attributes
    ----------
    batch_size : int
    lr : float
        The highest learning rate.
    weight_decay : float
        Of AdamW, on all weights.
    warmup : float
        Part of all steps in which the rate rises.
    label_smoothing : float
        See `stapes.losses.CrossEntropyLoss`.
    class_balance : float
        Classes weigh ``(mean count / count) ** class_balance`` in the loss: 0 all alike, 1 as if
        they had equally many samples.
    min_epochs, min_steps : int
        Training takes as many epochs as it needs for both.
    augment : Augment
        What is changed at random in each batch of training.
    """

    batch_size: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    label_smoothing: float = 0.1
    class_balance: float = 0.0
    min_epochs: int = 40
    min_steps: int = 600
    augment: Augment = field(
        default_factory=lambda: Augment(
            shift=0.1,
            gain=8.0,
            time_masks=1,
            time_width=0.1,
            band_masks=1,
            band_width=0.125,
            mixup=0.2,
        )
    )

    def epochs(self, samples: int) -> int:
        """Return how many epochs to train for, from the number of samples."""
        return max(self.min_epochs, math.ceil(self.min_steps / self.steps(samples)))

    def steps(self, samples: int) -> int:
        """Return the steps of an epoch."""
        return math.ceil(samples / self.batch_size)

    def optimizer(self, total_steps: int) -> AdamW:
        """Return the optimizer with its schedule."""
        rising = max(1, round(self.warmup * total_steps))
        falling = CosineLR(self.lr, total_steps=max(1, total_steps - rising))
        schedule = WarmupLR(falling, warmup_steps=rising, start_factor=1 / rising)
        return AdamW(lr=schedule, weight_decay=self.weight_decay)

    def loss(self, labels: Ints, classes: int) -> CrossEntropyLoss:
        """Return the loss, with the weights of the classes where they are to be balanced."""
        weight = None
        if self.class_balance:
            counts = np.maximum(np.bincount(labels, minlength=classes), 1)
            weight = ((counts.mean() / counts) ** self.class_balance).astype(np.float32)
        return CrossEntropyLoss(weight=weight, label_smoothing=self.label_smoothing)

    def config(self) -> dict[str, Any]:
        """Return all numbers, as JSON can hold them."""
        return asdict(self)
