"""Small networks and data for the tests of training."""

from __future__ import annotations

import numpy as np

from stapes import nn


def images(samples=60, classes=3, seed=0, shape=(9, 10, 1)):
    """Maps whose class shows in their mean; x float32, y int64."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, samples)
    x = rng.normal(size=(samples, *shape)) + y[:, None, None, None]
    return x.astype(np.float32), y


def seed_like(classes=3):
    """The seed network in small: everything in it can be fused."""
    return nn.Sequential(
        nn.Conv2d(None, 4, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(None, 6, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(None, 8),
        nn.ReLU(),
        nn.Linear(None, classes),
    )


def mixed(classes=3):
    """Batch norm, dropout, a way around, nesting, and a pool that cannot be fused."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(None, 4, 3, padding="same"), nn.BatchNorm2d(None), nn.ReLU()),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Residual(nn.Conv2d(None, 4, 3, padding="same"), nn.ReLU()),
        nn.GlobalAvgPool2d(),
        nn.Dropout(0.3),
        nn.Linear(None, classes),
    )


def chained(classes=3, channels=16):
    """Convolutions with batch norm and ReLU before them: on the CPU one kernel's."""
    layers = [nn.Conv2d(None, channels, 3, padding=1)]
    for stride in (1, 2):
        layers += [nn.BatchNorm2d(None), nn.ReLU()]
        layers += [nn.Conv2d(None, channels, 3, stride, padding=1, groups=channels, bias=False)]
        layers += [
            nn.BatchNorm2d(None),
            nn.ReLU(),
            nn.Conv2d(None, 2 * channels, 1, bias=stride > 1),
        ]
        channels *= 2
    layers += [nn.BatchNorm2d(None), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(None, classes)]
    return nn.Sequential(*layers)


def dense(outputs=2, hidden=8):
    return nn.Sequential(nn.Linear(None, hidden), nn.ReLU(), nn.Linear(None, outputs))


def assert_same_state(a, b):
    """All weights and running values are the same bits."""
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


class Stream:
    """A data object: arrays with classes, whose batches are noise-augmented from the seed."""

    def __init__(self, x, y, classes=("a", "b", "c")):
        self.x_, self.labels, self.classes = x, y, list(classes)

    def __len__(self):
        return len(self.labels)

    def batches(self, batch_size, *, shuffle, seed, start=0):
        n = len(self)
        order = np.random.default_rng(seed).permutation(n) if shuffle else np.arange(n)
        for i in range(start, -(-n // batch_size)):
            part = order[i * batch_size : (i + 1) * batch_size]
            x = self.x_[part]
            if shuffle:
                noise = np.random.default_rng([i, *np.atleast_1d(seed.entropy)])
                x = x + noise.normal(size=x.shape).astype(np.float32) * 0.1
            yield x, self.labels[part]
