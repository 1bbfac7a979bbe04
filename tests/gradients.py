"""Gradients of layers and networks, checked by central differences in float64."""

from __future__ import annotations

import numpy as np

STEP = 1e-6


def check_gradients(layer, x, rng, places=40, tolerance=1e-7):
    """Compare ``backward`` with differences of sum(dy * forward(x)), at ``places`` elements."""
    layer.astype(np.float64).train()
    start = layer.random_state()
    dy = rng.standard_normal(layer.forward(x).shape)

    def loss():
        layer.load_random_state(start)
        return float((layer.forward(x) * dy).sum())

    for p in layer.parameters():
        p.grad = np.full(p.shape, np.nan)
    loss()
    dx = layer.backward(dy)
    assert dx.shape == x.shape
    assert dx.dtype == x.dtype
    gradients = {p.name: (p.data, p.grad.copy()) for p in layer.parameters()}
    for name, (array, gradient) in {"x": (x, dx), **gradients}.items():
        check_against_differences(loss, array, gradient, rng, places, tolerance, name)
    layer.load_random_state(start)
    layer.forward(x)
    assert layer.backward(dy, need_dx=False) is None
    for p in layer.parameters():
        np.testing.assert_array_equal(p.grad, gradients[p.name][1])


def check_against_differences(loss, array, gradient, rng, places, tolerance, name):
    flat, expected = array.reshape(-1), gradient.reshape(-1)
    assert np.shares_memory(flat, array)
    chosen = rng.permutation(flat.size)[:places]
    for i in chosen:
        kept = flat[i]
        flat[i] = kept + STEP
        above = loss()
        flat[i] = kept - STEP
        below = loss()
        flat[i] = kept
        slope = (above - below) / (2 * STEP)
        assert abs(slope - expected[i]) <= tolerance * max(1, abs(slope)), (name, i)
