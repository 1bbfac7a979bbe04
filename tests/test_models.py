"""The ready-made networks, and the recipe they are trained by."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from stapes import models, nn
from stapes.recipe import Recipe


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("shape", [(101, 64, 1), (1, 13, 1), (7, 20, 1)])
def test_networks_take_spectrograms(name, shape):
    if name == "seed" and min(shape) < 4:
        pytest.skip("two pools of 2")
    net = models.build(name, 5, seed=1)
    assert net.build(shape) == (5,)
    net.compile()
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    assert np.isfinite(net.train_on_batch(x, np.array([0, 1, 4]))["loss"])
    assert net.predict(x).shape == (3, 5)


def test_cnn_takes_clips_of_other_lengths():
    net = models.build("cnn", 3)
    net.build((101, 64, 1))
    assert net.predict(np.zeros((2, 33, 64, 1), np.float32)).shape == (2, 3)


def test_cnn_is_small():
    net = models.build("cnn", 10)
    net.build((101, 64, 1))
    assert sum(p.data.size for p in net.parameters()) < 100_000


def test_seed_is_the_reference_network():
    net = models.build("seed", 10)
    net.build((64, 64, 3))
    shapes = [p.shape for p in net.parameters() if len(p.shape) > 1]
    assert shapes == [(32, 3, 3, 3), (64, 3, 3, 32), (64, 16 * 16 * 64), (10, 64)]
    assert net.shapes((64, 64, 3))[3] == (32, 32, 32)


def test_mlp_is_64_32():
    net = models.build("mlp", 2)
    net.build((1, 40, 1))
    assert [p.shape for p in net.parameters() if len(p.shape) > 1] == [(64, 40), (32, 64), (2, 32)]


def test_same_seed_same_weights():
    first, second, other = (models.build("cnn", 3, seed=seed) for seed in (1, 1, 2))
    weights = []
    for net in (first, second, other):
        net.build((20, 64, 1))
        weights.append(net.state_dict()["0.weight"])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize(("name", "classes"), [("other", 3), ("cnn", 1)])
def test_errors(name, classes):
    with pytest.raises(ValueError, match=r"models\.build"):
        models.build(name, classes)


def test_recipe_trains_for_enough_epochs_and_steps():
    recipe = Recipe(batch_size=10, min_epochs=5, min_steps=100)
    assert recipe.steps(41) == 5
    assert recipe.epochs(41) == 20
    assert recipe.epochs(10_000) == 5


def test_schedule_rises_and_falls_to_nothing():
    optimizer = Recipe(lr=0.1, warmup=0.1).optimizer(100)
    rates = []
    parameter = nn.Parameter(np.zeros(1, np.float32), "w")
    parameter.grad = np.zeros(1, np.float32)
    for _ in range(100):
        rates.append(optimizer.lr)
        optimizer.step([parameter])
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 10
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 1e-4


def test_class_balance():
    labels = np.array([0, 0, 0, 1])
    assert Recipe(class_balance=0).loss(labels, 2).weight is None
    weight = Recipe(class_balance=1).loss(labels, 2).weight
    np.testing.assert_allclose(weight * [3, 1], [2, 2])
