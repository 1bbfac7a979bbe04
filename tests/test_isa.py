"""STAPES_ISA forces an instruction set; it is read once, so each has a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stapes
import stapes.ops
from calls import calls

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="the variants are x86-64's"
)

RUN_ALL = """
import sys
import numpy as np
import stapes.ops
from calls import calls

results = [
    call.results(stapes.ops) for dtype in (np.float32, np.float64) for call in calls(dtype)
]
np.savez(sys.argv[1], *[y for result in results for y in result])
print(stapes._core.isa())
"""


def python(code, isa, *args):
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    env = {**os.environ, "STAPES_ISA": isa, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=120
    )


def supported(isa):
    return python("import stapes", isa).returncode == 0


@pytest.mark.parametrize("isa", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_same_results_within_tolerance(isa, tmp_path):
    if (isa != "x86-64-v2" or stapes._core.isa() == "generic") and not supported(isa):
        pytest.skip(f"this machine has no {isa}")
    done = python(RUN_ALL, isa, str(tmp_path / "results.npz"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == isa

    here = [
        y
        for dtype in (np.float32, np.float64)
        for call in calls(dtype)
        for y in call.results(stapes.ops)
    ]
    with np.load(tmp_path / "results.npz") as there:
        assert len(there.files) == len(here)
        for name, want in zip(there.files, here, strict=True):
            got = there[name]
            assert got.dtype == want.dtype
            if want.dtype.kind != "f":
                np.testing.assert_array_equal(got, want)
                continue
            scale = np.abs(want).max()
            np.testing.assert_allclose(
                got, want, rtol=0, atol=200 * np.finfo(want.dtype).eps * scale
            )


@pytest.mark.parametrize("isa", ["avx2", "x86-64-v5", "X86-64-V3 "])
def test_unknown_name_fails_the_import(isa):
    done = python("import stapes", isa)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "STAPES_ISA" in last
    assert repr(isa)[1:-1] in last
    assert "x86-64-v3" in last, "the error names what can be had"


def test_unsupported_name_fails_the_import():
    if supported("x86-64-v4"):
        pytest.skip("this machine has every instruction set")
    done = python("import stapes", "x86-64-v4")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "STAPES_ISA" in last
    assert "x86-64-v4" in last


def test_empty_name_is_no_choice():
    assert python("import stapes", "").returncode == 0


def test_the_active_one_is_told():
    done = python("import stapes; print(stapes._core.isa())", "x86-64-v2")
    assert done.stdout.strip() == "x86-64-v2"
    assert stapes._core.isa().startswith("x86-64-v")
