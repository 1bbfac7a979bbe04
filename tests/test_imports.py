"""What the package needs before it is asked for sound or a command line: NumPy alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Refuses every module that is neither Python's own, nor NumPy's, nor ours.
ONLY_NUMPY = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "stapes"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Refusing())
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "module",
    ["stapes", "stapes.ops", "stapes.nn", "stapes.optim", "stapes.losses", "stapes.models"],
)
def test_needs_numpy_alone(module):
    done = run(f"{ONLY_NUMPY}import {module}")
    assert done.returncode == 0, done.stderr


def test_other_modules_would_be_noticed():
    done = run(f"{ONLY_NUMPY}import pytest")
    assert "pytest was imported" in done.stderr


def test_training_step_needs_numpy_alone():
    code = ONLY_NUMPY + (
        "import numpy as np\n"
        "from stapes import nn\n"
        "net = nn.Sequential(nn.Flatten(), nn.Linear(None, 2))\n"
        "net.compile()\n"
        "net.train_on_batch(np.zeros((2, 4, 4, 1), np.float32), np.array([0, 1]))\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
