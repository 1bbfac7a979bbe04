"""``precision=`` of float32 convolutions on CUDA; no order of threads shows in a result."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import reference
from devices import Simt
from numerics import EPS32, Random, assert_close, assert_exact, bfloat16
from stapes.bench.shapes import ConvCase

# Pieces of 16 bytes, single elements, a wide tile, groups, classes of pixels, splits.
CASES = [
    ConvCase("pieces", (2, 8, 9, 16), (24, 3, 3, 16), padding=1),
    ConvCase("elements", (2, 7, 6, 5), (9, 3, 3, 5), padding=1),
    ConvCase("wide", (1, 17, 16, 72), (72, 1, 2, 72)),
    ConvCase("grouped_stride2", (2, 9, 8, 16), (16, 3, 3, 8), stride=2, padding=1, groups=2),
    ConvCase("many_splits", (9, 12, 13, 8), (8, 1, 2, 8)),
    ConvCase("split_depth", (2, 3, 4, 64), (24, 3, 3, 64), padding=1),
]
TF32 = 2.0**-11  # the relative error of a number rounded to TF32


def results(ops, case, random, precision, dtype=np.float32, draw="normal"):
    """(operator, result, expected, length of its sums) of the three operators, with a bias."""
    draw = getattr(random, draw)
    x, w, b = draw(case.x, dtype), draw(case.w, dtype), draw(case.w[0], np.float32)
    y = reference.conv2d_fwd(x, w, b, **case.options)
    dy = draw(y.shape, dtype)
    o = {**case.options, "precision": precision}
    pixels, taps = y.size // y.shape[-1], case.w[1] * case.w[2]
    dx = reference.conv2d_dgrad(dy, w, x.shape, **case.options)
    dw = reference.conv2d_wgrad(dy, x, w.shape, **case.options)
    return [
        ("fwd", ops.conv2d_fwd(x, w, b, **o), y, taps * case.w[3]),
        ("dgrad", ops.conv2d_dgrad(dy, w, x.shape, **o), dx, taps * case.w[0] // case.groups),
        ("wgrad", ops.conv2d_wgrad(dy, x, w.shape, **o), dw, pixels),
    ]


def on_cuda(ops):
    if ops.kernels == "cpu":
        pytest.skip("the CPU computes in fp32 alone")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_split_is_about_as_exact_as_fp32(ops, case, random):
    on_cuda(ops)
    for op, got, want, length in results(ops, case, random, "fp32_split"):
        assert got.dtype == np.float32, op
        assert_close(got, want, length=length)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_split_keeps_what_tf32_loses(ops, case, random):
    """Numbers of 20 bits: TF32 rounds them, their split does not."""
    on_cuda(ops)
    x = np.float32(1 + 2.0**-19) * random.integers(case.x, np.float32)
    w = random.integers(case.w, np.float32)
    want = reference.conv2d_fwd(x, w, **case.options)
    scale = np.abs(want).max()
    split = ops.conv2d_fwd(x, w, **case.options, precision="fp32_split")
    assert np.abs(split - want).max() <= 8 * EPS32 * scale
    assert np.abs(ops.conv2d_fwd(x, w, **case.options, precision="tf32") - want).max() > 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tf32(ops, case, random):
    on_cuda(ops)
    for op, got, want, length in results(ops, case, random, "tf32"):
        assert got.dtype == np.float32, op
        off = np.abs(got - want).max()
        # Each product is off by two roundings at most; the errors add up like a random walk.
        assert off <= 4 * TF32 * np.sqrt(length), f"{op} is off by {off:.3g}"
        assert off > 4 * EPS32, f"{op} was not computed in TF32"


@pytest.mark.parametrize("precision", ["fp32_split", "tf32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_small_integers_are_exact(ops, case, precision, random):
    on_cuda(ops)
    for _, got, want, _ in results(ops, case, random, precision, draw="integers"):
        assert_exact(got, want, np.float32)


def test_linear_and_conv_transpose2d_take_precision(ops, random):
    on_cuda(ops)
    x, w = random.normal((9, 24), np.float32), random.normal((16, 24), np.float32)
    tf32 = ops.linear_fwd(x, w, precision="tf32")
    assert 0 < np.abs(tf32 - reference.linear_fwd(x, w)).max() <= 4 * TF32 * np.sqrt(24)
    image, filters = (
        random.normal((2, 4, 3, 8), np.float32),
        random.normal((8, 2, 2, 16), np.float32),
    )
    want = reference.conv_transpose2d_fwd(image, filters, stride=2)
    got = ops.conv_transpose2d_fwd(image, filters, stride=2, precision="tf32")
    assert 0 < np.abs(got - want).max() <= 4 * TF32 * np.sqrt(8)


def digest(ops):
    """Of the bits of all results."""
    hashed = hashlib.sha256()
    for case in CASES:
        for dtype in ops.dtypes:
            precisions = ("fp32", "fp32_split", "tf32") if dtype == np.float32 else ("fp32",)
            for precision in precisions:
                for _, got, _, _ in results(ops, case, Random(5), precision, dtype):
                    hashed.update(got.tobytes())
    return hashed.hexdigest()


def test_the_same_bits_on_every_run(ops):
    on_cuda(ops)
    assert digest(ops) == digest(ops)


def test_no_order_of_threads_shows(ops):
    """The emulator runs lanes and blocks in an order that its seed decides."""
    if ops.name != "simt":
        pytest.skip("the order of threads is the device's")
    want = digest(ops)
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, "STAPES_SIMT_SEED": seed},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == want, f"order {seed} gives other bits"


def refusals(ops):
    """What is said of dtypes and precisions that the device lacks."""
    said = []
    for dtype, precision in [(bfloat16, "fp32"), (np.float32, "tf32"), (np.float32, "fp32_split")]:
        try:
            results(ops, CASES[0], Random(0), precision, dtype)
        except RuntimeError as error:
            said.append(str(error))
    return said


def test_what_sm_75_lacks_is_refused(ops):
    if ops.name != "simt":
        pytest.skip("the device is what it is")
    done = subprocess.run(
        [sys.executable, __file__, "refusals"],
        env={**os.environ, "STAPES_SIMT_ARCH": "75"},
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == 3, done.stderr
    assert all(
        re.search(r"conv2d_fwd: bfloat16 .*needs? compute capability 8\.0", line) for line in said
    )


if __name__ == "__main__":
    print("\n".join(refusals(Simt())) if sys.argv[1:] == ["refusals"] else digest(Simt()))
