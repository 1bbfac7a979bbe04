"""Losses: torch's values, gradients by central differences, errors."""

import numpy as np
import pytest

from gradients import check_against_differences
from stapes import losses, nn


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def one_hot(ids, classes):
    return np.eye(classes)[ids]


CASES = {
    "plain": {},
    "weight": {"weight": np.array([0.5, 1.0, 2.0, 0.25])},
    "smoothing": {"label_smoothing": 0.1},
    "ignore": {"ignore_index": 1},
    "all": {"weight": np.array([0.5, 1, 2, 1]), "label_smoothing": 0.3, "ignore_index": 0},
}


@pytest.mark.parametrize("arguments", CASES.values(), ids=list(CASES))
def test_cross_entropy_is_torchs(arguments, rng):
    torch = pytest.importorskip("torch")
    logits, ids = rng.standard_normal((7, 4)), rng.integers(0, 4, 7)
    theirs_arguments = dict(arguments)
    if "weight" in arguments:
        theirs_arguments["weight"] = torch.tensor(arguments["weight"])
    theirs_logits = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.CrossEntropyLoss(**theirs_arguments)(theirs_logits, torch.tensor(ids))
    expected.backward()
    loss, grad = nn.CrossEntropyLoss(**arguments)(logits, ids)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-12)
    np.testing.assert_allclose(grad, theirs_logits.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("arguments", CASES.values(), ids=list(CASES))
def test_cross_entropy_gradient(arguments, probabilities, rng):
    logits, target = rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    if probabilities:
        arguments = {k: v for k, v in arguments.items() if k != "ignore_index"}
        target = rng.dirichlet(np.ones(4), 5)
    loss_fn = nn.CrossEntropyLoss(**arguments)
    _, grad = loss_fn(logits, target)
    loss = lambda: float(loss_fn(logits, target)[0])  # noqa: E731
    check_against_differences(loss, logits, grad, rng, 20, 1e-8, "logits")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_hot_equals_ids(dtype, rng):
    logits, ids = rng.standard_normal((6, 4)).astype(dtype), rng.integers(0, 4, 6)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    loss, grad = loss_fn(logits, ids)
    assert loss.dtype == grad.dtype == dtype
    for target in (one_hot(ids, 4), one_hot(ids, 4).astype(np.float32)):
        other, other_grad = loss_fn(logits, target)
        np.testing.assert_allclose(other, loss, rtol=1e-6)
        np.testing.assert_allclose(other_grad, grad, atol=1e-6)


def test_weights_of_any_dtype(rng):
    logits, ids = rng.standard_normal((6, 3)).astype(np.float32), rng.integers(0, 3, 6)
    results = [
        nn.CrossEntropyLoss(weight=w)(logits, ids)[0]
        for w in ([1, 2, 3], np.array([1.0, 2.0, 3.0]), np.array([1, 2, 3], np.float32))
    ]
    assert results[0] == results[1] == results[2]


def test_mse(rng):
    y, target = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    loss, grad = nn.MSELoss()(y, target)
    assert float(loss) == pytest.approx(np.mean((y - target) ** 2), rel=1e-14)
    np.testing.assert_allclose(grad, 2 * (y - target) / 15, rtol=1e-14)


def test_errors(rng):
    logits = rng.standard_normal((4, 3))
    with pytest.raises(ValueError, match="CrossEntropyLoss: label_smoothing must be in"):
        nn.CrossEntropyLoss(label_smoothing=1.5)
    with pytest.raises(ValueError, match="CrossEntropyLoss: weight must be one number"):
        nn.CrossEntropyLoss(weight=np.ones((3, 3)))
    with pytest.raises(ValueError, match="CrossEntropyLoss: weight must be"):
        nn.CrossEntropyLoss(weight=[1, -1, 1])
    with pytest.raises(TypeError, match="ignore_index must be an integer"):
        nn.CrossEntropyLoss(ignore_index=None)
    with pytest.raises(ValueError, match="cross_entropy_fwd"):
        nn.CrossEntropyLoss()(logits, np.array([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="cross_entropy_fwd"):
        nn.CrossEntropyLoss(weight=[1.0, 2.0])(logits, np.array([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="mse_fwd"):
        nn.MSELoss()(logits, np.ones((4, 1)))
    with pytest.raises(TypeError, match="output must be a NumPy or CuPy array"):
        nn.CrossEntropyLoss()([[1.0, 2.0]], np.array([0]))


def test_same_names_in_both_modules():
    assert losses.CrossEntropyLoss is nn.CrossEntropyLoss
    assert losses.MSELoss is nn.MSELoss
