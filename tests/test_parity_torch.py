"""50 training steps of the seed network beside PyTorch's, from the same weights and batches."""

import numpy as np
import pytest

from stapes import nn, optim
from stapes.nn import convert

torch = pytest.importorskip("torch")

STEPS, CLASSES = 50, 10
LIMITS = {np.float64: (1e-9, 1e-9), np.float32: (1e-4, 1e-3)}  # losses, weight tensors
OPTIMIZERS = {
    "sgd": (
        lambda: optim.SGD(2e-3, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9),
    ),
    "adam": (lambda: optim.Adam(1e-3), lambda p: torch.optim.Adam(p, lr=1e-3)),
    "adamw": (
        lambda: optim.AdamW(1e-3, weight_decay=0.05),
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
    ),
}


def seed_networks(size, dtype):
    """Return ours and theirs with the same weights, and the first dense layer's (C, H, W)."""
    conv = {"kernel_size": 3, "padding": "same"}
    ours = nn.Sequential(
        nn.Conv2d(3, 32, **conv), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, **conv), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(None, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip
    ours.astype(dtype).build((size, size, 3), seed=7)
    t = torch.nn
    theirs = t.Sequential(
        t.Conv2d(3, 32, **conv), t.ReLU(), t.MaxPool2d(2),
        t.Conv2d(32, 64, **conv), t.ReLU(), t.MaxPool2d(2),
        t.Flatten(), t.Linear(64 * (size // 4) ** 2, 64), t.ReLU(), t.Linear(64, CLASSES),
    )  # fmt: skip
    theirs.to(torch.float64 if dtype is np.float64 else torch.float32)
    hwc = (size // 4, size // 4, 64)
    state = {}
    for name, w in ours.state_dict().items():
        if w.ndim == 4:
            w = convert.conv_weight_to_torch(w)
        elif name == "7.weight":
            w = convert.flatten_columns_to_torch(w, hwc)
        state[name] = torch.from_numpy(w)
    theirs.load_state_dict(state)
    return ours, theirs, (64, *hwc[:2])


def torchs_weights(theirs, chw):
    for name, tensor in theirs.state_dict().items():
        w = tensor.numpy()
        if w.ndim == 4:
            w = convert.conv_weight(w)
        elif name == "7.weight":
            w = convert.flatten_columns(w, chw)
        yield name, w


def batches(size, n, dtype, seed):
    """Classes that can be told apart (coarse patterns in noise), so that the losses fall."""
    rng = np.random.default_rng(seed)
    patterns = np.kron(
        rng.standard_normal((CLASSES, 4, 4, 3)), np.ones((1, size // 4, size // 4, 1))
    )
    for _ in range(STEPS):
        y = rng.integers(0, CLASSES, n)
        x = 0.5 * patterns[y] + 0.2 * rng.standard_normal((n, size, size, 3))
        yield x.astype(dtype), y


def differences(size, n, dtype, name, seed):
    """Train both; return the largest difference of the losses, and of the weight tensors."""
    ours, theirs, chw = seed_networks(size, dtype)
    our_optimizer = OPTIMIZERS[name][0]()
    their_optimizer = OPTIMIZERS[name][1](theirs.parameters())
    our_loss, their_loss = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    losses = []
    for x, y in batches(size, n, dtype, seed):
        loss, grad = our_loss(ours.forward(x), y)
        ours.backward(grad, need_dx=False)
        our_optimizer.step(ours.parameters())

        their_optimizer.zero_grad()
        expected = their_loss(theirs(torch.from_numpy(convert.nchw(x))), torch.from_numpy(y))
        expected.backward()
        their_optimizer.step()
        losses.append((float(loss), expected.item()))

    a, b = np.array(losses).T
    assert a[-1] < 0.2 * a[0], "nothing was learnt, so there is nothing to compare"
    weights = ours.state_dict()
    tensors = [
        np.linalg.norm(weights[key] - w) / np.linalg.norm(w)
        for key, w in torchs_weights(theirs, chw)
    ]
    return np.abs(a - b).max(), max(tensors)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("size", "n"), [(16, 16), (64, 4)], ids=["16x16", "64x64"])
def test_parity(size, n, dtype, name):
    def fits(seed):
        found.append(differences(size, n, dtype, name, seed))
        return all(d <= limit for d, limit in zip(found[-1], LIMITS[dtype], strict=True))

    found = []
    if fits(seed=11):
        return
    # In float32 a unit within rounding of ReLU's kink, or of a tie in pooling, may fall on the
    # other side and change a gradient by a finite amount (seen in 2 of 14 runs, beside the same
    # runs in float64): two of three sets of batches must fit.
    assert dtype is np.float32 and fits(seed=12) and fits(seed=13), found
