"""A network for ten classes of 64x64 colour images, in Keras's words.

    python examples/keras_style.py [--epochs 10] [--images 500]

The images are made here: each class is a grating of its own direction and colour, in noise. With
the defaults this takes well under a minute on one core.
"""

from __future__ import annotations

import argparse

import numpy as np

from stapes import nn

CLASSES = 10


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return gratings (count, 64, 64, 3) float32 and one-hot labels (count, 10)."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % CLASSES
    angle = classes * np.pi / CLASSES
    row, column = np.mgrid[0:64, 0:64]
    along = np.multiply.outer(np.cos(angle), column) + np.multiply.outer(np.sin(angle), row)
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    colour = 0.5 + 0.5 * np.cos(angle[:, None] * 2 + [0, 2, 4])
    x = np.sin(0.6 * along + phase)[..., None] * colour[:, None, None, :]
    x = x + rng.normal(scale=0.7, size=x.shape)
    return x.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[classes]


def main() -> None:
    """Train, and show the loss of each epoch and a few predictions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=500)
    args = parser.parse_args()

    x, y = images(args.images, seed=0)
    x_valid, y_valid = images(args.images // 4, seed=1)

    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(None, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
        nn.Softmax(),
    )
    model.build((64, 64, 3))
    model.summary()

    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=32, epochs=args.epochs, validation_data=(x_valid, y_valid))
    for name, values in history.history.items():
        print(f"{name:13}", " ".join(f"{value:.3f}" for value in values))

    probabilities = model.predict(x_valid[:5])
    print("true     ", y_valid[:5].argmax(axis=1))
    print("predicted", probabilities.argmax(axis=1), "with", probabilities.max(axis=1).round(3))


if __name__ == "__main__":
    main()
