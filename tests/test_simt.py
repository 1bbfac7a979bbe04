"""The emulator of CUDA (csrc/simt): faulty kernels are reported, correct ones are not."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import simt_module

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
KERNELS = ROOT / "tests" / "simt"

COMMON = ["-std=c++20", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
COMMON += ["-Wno-unknown-pragmas", f"-I{CSRC}", f"-I{KERNELS}", "-DSTAPES_SIMT"]
CHECKED = ["-x", "c++", "-O1", "-fsanitize=thread,bounds,alignment"]
COVERAGE = ["--coverage"] if simt_module.MODE == "coverage" else []
CHECKED += ["--param=tsan-instrument-func-entry-exit=0", "-fno-strict-aliasing"]

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("addr2line") is None,
    reason="needs g++ and addr2line",
)


class SimtError(Exception):
    """What a launch on the emulator threw."""


class Emulator:
    """The cases of tests/simt by name, on NumPy arrays: one that is read-only is an input."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self._library.run_case.restype = ctypes.c_char_p
        self._library.launches.restype = ctypes.c_uint64

    def __call__(self, name, *arrays, number=0):
        for a in arrays:
            bytes_ = ctypes.c_size_t(a.nbytes)
            self._library.lend(ctypes.c_void_p(a.ctypes.data), bytes_, a.flags.writeable)
        pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        message = self._library.run_case(name.encode(), pointers, ctypes.c_int64(number))
        message = message and message.decode()
        for a in reversed(arrays):
            self._library.end_loan(ctypes.c_void_p(a.ctypes.data))
        if message is not None:
            raise SimtError(message)

    def seed(self, value):
        self._library.set_seed(ctypes.c_uint64(value))

    def launches(self):
        return self._library.launches()


def compile_all(folder):
    """The engine, the parts of csrc/cuda that need no operators, and the cases; one library."""
    kernels = [*KERNELS.glob("*.cu"), CSRC / "cuda" / "runtime.cu"]
    kernels.append(CSRC / "cuda" / "fragment_selftest.cu")
    sources = [(path, ["-O1"]) for path in [*CSRC.glob("simt/*.cpp"), KERNELS / "harness.cpp"]]
    sources += [(path, [*CHECKED, *COVERAGE]) for path in kernels]
    objects = [folder / f"{path.name}.o" for path, _ in sources]

    def compile_one(source, to):
        path, flags = source
        done = subprocess.run(
            ["g++", *COMMON, *flags, "-c", path, "-o", to], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    library = folder / "simt_cases.so"
    subprocess.run(
        ["g++", "-shared", "-Wl,-z,defs", *COVERAGE, *objects, "-o", library], check=True
    )
    return library


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simt")
    if COVERAGE:  # where tests/kernel_coverage.py looks for counts
        folder = simt_module.BUILD / "cases"
        folder.mkdir(parents=True, exist_ok=True)
    return Emulator(compile_all(folder))


@pytest.fixture(params=[0, 1, 2, 3])
def emulator(built, request):
    """In four orders of the lanes and blocks."""
    built.seed(request.param)
    yield built
    built.seed(0)


def lines(name, mark):
    """Where tests/simt marks `name` with "fault:" or "earlier:", as file:line."""
    found = []
    for path in KERNELS.glob("*.cu"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            marked = re.search(rf"// {mark}: (.*)", line)
            if marked and name in marked[1].split():
                found.append(f"{path.name}:{number}")
    return found


def inputs(size, dtype=np.float32):
    x = np.arange(size).astype(dtype)
    x.flags.writeable = False
    return x


def outputs(size, dtype=np.float32):
    return np.zeros(size, dtype)


FAULTS = {
    "race_in_block": ("race", lambda: [outputs(64)]),
    "race_in_warp": ("race", lambda: [outputs(32)]),
    "race_between_blocks": ("race", lambda: [outputs(1)]),
    "no_fence": ("race", lambda: [outputs(3), outputs(1, np.uint32)]),
    "no_barrier_before_fence": ("race", lambda: [outputs(192), outputs(1, np.uint32)]),
    "plain_counter": ("race", lambda: [outputs(1, np.uint32)]),
    "ldmatrix_race": ("race", lambda: [outputs(32, np.uint32)]),
    "uninit_static": ("uninit", lambda: [outputs(32)]),
    "uninit_dynamic": ("uninit", lambda: [outputs(64)]),
    "uninit_workspace": ("uninit", lambda: [outputs(32)]),
    "write_to_input": ("bounds", lambda: [inputs(32), inputs(32)]),
    "out_of_bounds_global": ("bounds", lambda: [inputs(40), outputs(32)]),
    "half_outside": ("bounds", lambda: [aligned(inputs(6)), aligned(outputs(4))]),
    "out_of_bounds_static": ("bounds", lambda: [outputs(32)]),
    "past_shared_array": ("bounds", lambda: [outputs(32)]),
    "out_of_bounds_dynamic": ("bounds", lambda: [outputs(32)]),
    "misaligned": ("align", lambda: [aligned(inputs(8)), aligned(outputs(4))]),
    "other_stack": ("local", lambda: [outputs(32)]),
    "touched_in_flight": ("async", lambda: [aligned(inputs(128)), outputs(32)]),
    "exit_in_flight": ("async", lambda: [aligned(inputs(128))]),
    "no_barrier_after_wait": ("race", lambda: [aligned(inputs(256)), outputs(64)]),
    "divergent_barrier": ("barrier", list),
    "exited_before_barrier": ("barrier", list),
    "absent_lane": ("barrier", lambda: [outputs(32)]),
    "mask_without_caller": ("barrier", lambda: [outputs(32)]),
    "different_collectives": ("barrier", lambda: [outputs(32)]),
    "deadlock": ("barrier", list),
    "half_a_warp": ("barrier", lambda: [outputs(32, np.uint32)]),
}


def aligned(x):
    """The same array at an address that is a multiple of 16."""
    buffer = np.empty(x.nbytes + 16, np.uint8)
    begin = -buffer.ctypes.data % 16
    copy = buffer[begin : begin + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    copy.flags.writeable = x.flags.writeable
    return copy


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_with_line_and_thread(emulator, name):
    check, arrays = FAULTS[name]
    with pytest.raises(SimtError) as raised:
        emulator(name, *arrays())
    report = str(raised.value)
    assert report.startswith(f"{check}: "), report
    assert re.search(r"in block \(\d+,0,0\), thread \(\d+,0,0\)", report), report
    faults = lines(name, "fault")
    assert faults, f"tests/simt marks no line of {name}"
    for line in faults + lines(name, "earlier"):
        assert line in report


def test_reports_name_shared_arrays(built):
    with pytest.raises(SimtError, match=r"4-byte write of shared array short_by_one \+124"):
        built("past_shared_array", outputs(32))
    with pytest.raises(SimtError, match=r"shared s \+\d+: thread \d+ reads what thread \d+ wrote"):
        built("race_in_warp", outputs(32))
    with pytest.raises(SimtError, match=r"dynamic shared memory \+0 is read before any write"):
        built("uninit_dynamic", outputs(64))


LIMITS = {
    "block_too_large": "1025x1x1 threads",
    "too_much_shared": "307200 bytes of dynamic shared memory; sm_90 has 232448",
    "grid_too_large": "1x65536x1 blocks",
    "nested": "a launch from inside of a kernel",
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_no_device_would_launch(built, name):
    with pytest.raises(SimtError, match=LIMITS[name]):
        built(name)


def test_an_empty_grid_launches_nothing(built):
    before = built.launches()
    built("empty_grid")
    assert built.launches() == before


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def bfloat16_bits(x):
    """To nearest, ties to even; written without the emulator's help."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


INSTRUCTIONS = {
    "m16n8k16 bf16": (0, 16, lambda x: bfloat16_bits(x), from_bfloat16, 1e-6),
    "m16n8k16 f16": (1, 16, lambda x: x.astype(np.float16), np.asarray, 1e-6),
    "m16n8k8 f16": (2, 8, lambda x: x.astype(np.float16), np.asarray, 1e-6),
    "m16n8k8 tf32": (3, 8, np.asarray, np.asarray, 2e-3),
    "m16n8k8 tf32, three terms": (4, 8, np.asarray, np.asarray, 1e-6),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_fragments_of_matrix_instructions(emulator, name):
    number, k, store, load, tolerance = INSTRUCTIONS[name]
    a, b = store(random(16, k)), store(random(k, 8, seed=1))
    bt = np.ascontiguousarray(b.T)
    d = np.full((3, 16, 8), np.nan, np.float32)
    emulator("fragments", aligned(a), aligned(b), aligned(bt), d, number=number)
    expected = load(a).astype(np.float64) @ load(b).astype(np.float64)
    assert np.abs(d - expected).max() < tolerance * np.sqrt(k)


def test_block_reduce(emulator):
    x, y = random(3, 300), np.full((3, 2), np.nan, np.float32)
    x[1, 200] = np.nan
    emulator("row_statistics", x, y, number=300)
    np.testing.assert_array_equal(y[:, 0], x.max(axis=1))
    np.testing.assert_allclose(y[:, 1], x.sum(axis=1, dtype=np.float64), atol=1e-4)


@pytest.mark.parametrize("size", [1, 640, 3001])
def test_sum_by_the_last_block(emulator, size):
    x, y = random(size), outputs(1)
    emulator("sum", x, y, number=size)
    np.testing.assert_allclose(y[0], x.sum(dtype=np.float64), atol=1e-4)


@pytest.mark.parametrize("rows", [1, 4, 5, 30])
def test_pipeline_of_two_tiles_in_flight(emulator, rows):
    x, y = aligned(random(rows, 64).ravel()), np.full(64, np.nan, np.float32)
    emulator("pipeline", x, y, number=rows)
    np.testing.assert_allclose(y, x.reshape(rows, 64).sum(axis=0, dtype=np.float64), atol=1e-5)


@pytest.mark.parametrize("begin", range(4))
def test_neighbouring_bytes_are_no_race(emulator, begin):
    x, y = inputs(103, np.uint8), outputs(107, np.uint8)[begin : begin + 103]
    emulator("reverse_bytes_of_blocks", x, y, number=103)
    expected = [x[i : i + 40][::-1] for i in range(0, 103, 40)]
    np.testing.assert_array_equal(y, np.concatenate(expected))


def test_arguments_structs_lambdas_and_wide_types(emulator):
    x, y = inputs(64, np.int64), outputs(64, np.float64)
    emulator("arguments", x, y, number=7)
    i = np.arange(64)
    np.testing.assert_array_equal(y, (i + 1) * (x + 7 + np.array([0, 10, 200, 3000])[i % 4]))


def hard_floats():
    """Every pattern of the upper 16 bits, with lower ones that round down, up, and to even."""
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0x0000, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001], np.uint32)
    return (high[:, None] | low).view(np.float32).ravel()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_conversions_of_16_bits(built, dtype):
    v = aligned(hard_floats())
    bits = aligned(np.resize(np.arange(1 << 16, dtype=np.uint16), v.size))
    wide, narrow = aligned(outputs(v.size)), aligned(outputs(v.size, np.uint16))
    built(f"convert_{dtype}", bits, wide, v, narrow, number=v.size // 8)
    with np.errstate(over="ignore", invalid="ignore"):
        is_half = dtype == "float16"
        expected_wide = bits.view(np.float16).astype(np.float32) if is_half else from_bfloat16(bits)
        expected = v.astype(np.float16).view(np.uint16) if is_half else bfloat16_bits(v)
    np.testing.assert_array_equal(wide, expected_wide)
    np.testing.assert_array_equal(narrow, np.where(np.isnan(v), 0x7FFF, expected))


def test_warp_intrinsics(emulator):
    y, lane = outputs((8, 32), np.uint32), np.arange(32)
    emulator("intrinsics", y)
    np.testing.assert_array_equal(y[0], sum(1 << i for i in range(0, 32, 3)))
    np.testing.assert_array_equal(y[1], np.maximum(lane - 1, 0))
    np.testing.assert_array_equal(y[2], np.where(lane % 8 < 4, lane + 4, lane))
    np.testing.assert_array_equal(y[3], lane // 16 * 16 + 5)
    np.testing.assert_array_equal(y[4], 1)
    ffs = [(i & -i).bit_length() for i in range(32)]
    np.testing.assert_array_equal(
        y[5], [i.bit_count() + 100 * f for i, f in zip(range(32), ffs, strict=True)]
    )
    np.testing.assert_array_equal(y[6], lane // 2)
    np.testing.assert_array_equal(y[7].view(np.float32), lane / 2 + 1)


def test_one_array_lent_as_input_and_output(emulator):
    y = random(32)
    x = y.view()
    x.flags.writeable = False
    expected = 2 * y
    emulator("double", x, y, number=32)
    np.testing.assert_array_equal(y, expected)


def test_arrays_inside_of_each_other(emulator):
    buffer = random(40)
    x, y = buffer[3:7], outputs(4)
    x.flags.writeable = False
    emulator("double", x, y, buffer[3:3], number=4)
    np.testing.assert_array_equal(y, 2 * x)
    with pytest.raises(SimtError, match="4-byte read"):
        emulator("double", x, outputs(5), number=5)
    whole = buffer.view()
    whole.flags.writeable = False
    emulator("double", x, outputs(5), whole, number=5)


def test_launches_from_several_threads(built):
    """Shared memory is thread-local to the thread that launches; each has its own, lazily."""
    x, failures = random(3, 300), []

    def work():
        y = np.full((3, 2), np.nan, np.float32)
        for _ in range(3):
            built("row_statistics", x, y, number=300)
        if not np.array_equal(y[:, 0], x.max(axis=1)):
            failures.append(y)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
