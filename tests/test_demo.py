"""``stapes demo``: synthetic sounds, a model that tells them apart, a sound told from its file."""

from __future__ import annotations

import numpy as np

import stapes as package
from command_line import answer, complaint, stapes
from stapes.cli._synthetic import KINDS, RATE, SECONDS, synthesise


def test_demo(tmp_path):
    found = answer(stapes(tmp_path, "demo", "--json"))
    assert found["synthetic"] is True
    assert found["accuracy"] >= 0.95
    assert found["classes"] == KINDS
    sound = found["sound"]
    assert sound["predicted"]["class"] == sound["is"]
    model = package.load(tmp_path / found["model"])
    (again,) = model.predict_files([tmp_path / sound["path"]])
    assert again["class"] == sound["is"]
    assert "holds a run" in complaint(stapes(tmp_path, "demo", "--out", "runs/demo-1"))


def test_sounds_are_the_same_for_a_seed():
    samples, labels = synthesise(3, 0)
    again, _ = synthesise(3, 0)
    other, _ = synthesise(3, 1)
    assert samples.shape == (3 * len(KINDS), round(RATE * SECONDS))
    assert labels.tolist() == np.repeat(np.arange(len(KINDS)), 3).tolist()
    np.testing.assert_array_equal(samples, again)
    assert not np.array_equal(samples, other)
    assert np.abs(samples).max() < 2
