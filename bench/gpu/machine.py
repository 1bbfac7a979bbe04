"""Which GPU there is, asked of the driver itself, and which versions of what are installed."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from context import NotRunError

_PACKAGES = (
    "numpy", "torch", "cupy-cuda13x", "cupy-cuda12x", "triton", "ml_dtypes", "pybind11",
    "scikit-build-core", "cmake", "ninja", "pytest", "hypothesis", "pytest-xdist",
)  # fmt: skip
_MAJOR, _MINOR, _SM_COUNT, _L2_BYTES = 75, 76, 16, 38  # of enum CUdevice_attribute


def find_gpu() -> dict[str, Any]:
    """Return name, compute capability, memory, multiprocessors, L2 and driver of the first GPU.

    Raises
    ------
    NotRunError
        Where there is none.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as e:
        raise NotRunError(f"no device: no driver ({e})") from e
    code = cuda.cuInit(0)
    if code:
        raise NotRunError(f"no device: cuInit gives error {code}")
    count, device, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        raise NotRunError("no device: the driver finds none")
    cuda.cuDeviceGet(ctypes.byref(device), 0)

    def attribute(number: int) -> int:
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    name, size = ctypes.create_string_buffer(128), ctypes.c_size_t()
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    cuda.cuDriverGetVersion(ctypes.byref(value))
    version = value.value
    return {
        "name": name.value.decode(),
        "capability": [attribute(_MAJOR), attribute(_MINOR)],
        "memory_gib": round(size.value / 2**30, 1),
        "multiprocessors": attribute(_SM_COUNT),
        "l2_mib": round(attribute(_L2_BYTES) / 2**20, 1),
        "driver_cuda": f"{version // 1000}.{version % 1000 // 10}",
        "driver": _driver(),
    }


def architecture(capability: list[int]) -> str:
    """Return what nvcc calls this compute capability: with Hopper's own instructions there."""
    number = capability[0] * 10 + capability[1]
    return "90a" if number == 90 else str(number)


def software() -> dict[str, str]:
    """Return the versions of what takes part."""
    versions = {"python": f"{platform.python_version()} ({sys.executable})"}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for name in ("nvcc", "compute-sanitizer"):
        path = cuda_tool(name)
        if path is not None:
            out = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            found = re.search(r"release ([\d.]+)|[Vv]ersion ([\d.]+)", out)
            versions[name] = (found[1] or found[2]) if found else path
    return versions


def cuda_tool(name: str) -> str | None:
    """Return the path of one of CUDA's programs: on PATH, beside nvcc, or where CUDA is said to be.

    That is CUDA_HOME or CUDA_PATH, else the usual place.
    """
    nvcc = shutil.which("nvcc")
    folders = [Path(nvcc).resolve().parent] if nvcc else []
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    folders += [Path(home) / "bin" for home in homes if home]
    found = shutil.which(name)
    return found or next((str(f / name) for f in folders if (f / name).exists()), None)


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    return lines[0].strip() if lines else ""
