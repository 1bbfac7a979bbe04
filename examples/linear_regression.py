"""Linear regression by gradient descent, with each of three criteria to stop.

    python examples/linear_regression.py

y = 3 a - 2 b + 1 and noise. The whole set is one batch, so that a step is an epoch and descends the
mean squared error itself; the exact least-squares solution is shown beside what is found.
"""

from __future__ import annotations

import numpy as np

from stapes import nn
from stapes.optim import SGD
from stapes.train import StopWhen


def main() -> None:
    """Fit three times, and print steps, loss and coefficients."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    noise = rng.normal(scale=0.1, size=(200, 1))
    y = (x @ [[3.0], [-2.0]] + 1 + noise).astype(np.float32)

    exact = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0].ravel()
    print(f"{'criterion':28}{'steps':>6}{'loss':>12}   coefficients")
    print(f"{'least squares, exact':28}{'':6}{'':12}   {exact.round(4)}")

    criteria = {
        "20 epochs": (20, None),
        "loss below 0.012": (1000, StopWhen(loss_below=0.012)),
        "gradient norm below 0.001": (1000, StopWhen(grad_norm_below=1e-3)),
    }
    for name, (epochs, stop) in criteria.items():
        model = nn.Sequential(nn.Linear(2, 1, seed=0))
        model.compile(SGD(lr=0.1), loss="mse")
        history = model.fit(
            x, y, batch_size=len(x), epochs=epochs, progress=False, callbacks=[stop] if stop else []
        )
        loss = history.history["loss"]
        weight, bias = (p.data for p in model.parameters())
        found = np.append(weight, bias)
        print(f"{name:28}{len(loss):6}{loss[-1]:12.6f}   {found.round(4)}")


if __name__ == "__main__":
    main()
