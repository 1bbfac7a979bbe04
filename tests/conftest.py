"""Fixtures of the operator tests: devices and dtypes, random numbers, thread counts."""

from __future__ import annotations

import os
import signal
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import stapes
from devices import DEVICES
from numerics import Random

# A shell's background jobs ignore Ctrl-C, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "explore", settings.get_profile("ci"), derandomize=False, max_examples=500
)
settings.load_profile(os.environ.get("STAPES_HYPOTHESIS_PROFILE", "ci"))


def pytest_generate_tests(metafunc):
    """Run a test that takes ``ops`` on every device, and one that takes ``dtype`` in its dtypes."""
    if "ops" not in metafunc.fixturenames:
        return
    devices = [make() for make in DEVICES]
    if "dtype" in metafunc.fixturenames:
        both = [(d, t) for d in devices for t in d.dtypes]
        ids = [f"{d.name}-{np.dtype(t).name}" for d, t in both]
        metafunc.parametrize(("ops", "dtype"), both, ids=ids, scope="session")
    else:
        metafunc.parametrize("ops", devices, ids=[d.name for d in devices], scope="session")


@pytest.fixture
def random(request):
    """Arrays drawn from a generator that depends on the test's name alone."""
    return Random(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def threads():
    """``stapes.set_num_threads``; the count that was set before comes back afterwards."""
    before = stapes.num_threads()
    yield stapes.set_num_threads
    stapes.set_num_threads(before)
