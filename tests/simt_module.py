"""The module _simt, CUDA's kernels on the emulator: built on first use, from the sources beside us.

``STAPES_SIMT_MODE`` chooses how (csrc/simt/simt.cmake), ``STAPES_SIMT_DIR`` where.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pybind11

import stapes.ops

ROOT = Path(__file__).resolve().parent.parent
MODE = os.environ.get("STAPES_SIMT_MODE", "check")
BUILD = Path(os.environ.get("STAPES_SIMT_DIR", ROOT / "build" / f"simt-{MODE}"))


def module() -> ModuleType:
    """Return _simt; a build that failed is told again, and not tried again."""
    built = _built()
    if isinstance(built, Exception):
        raise built
    return built


@functools.cache
def _built() -> ModuleType | Exception:
    try:
        return _build()
    except (OSError, RuntimeError, ImportError) as error:
        return error


def _build() -> ModuleType:
    """Build _simt where it is not up to date, and import it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    _run(
        "cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DSTAPES_SIMT=ON",
        f"-DSTAPES_SIMT_MODE={MODE}", f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", "-DSTAPES_CUDA=OFF",
        f"-DSTAPES_WERROR={os.environ.get('STAPES_WERROR', 'ON')}",
    )  # fmt: skip
    _run("cmake", "--build", BUILD, "--target", "_simt")
    path = BUILD / f"_simt{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location("_simt", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def in_place_of_core():
    """Make stapes.ops call _simt instead of _core."""
    users = [m for name, m in sys.modules.items() if name.startswith("stapes.ops.")]
    users = [m for m in users if hasattr(m, "_core")]
    core, simt = stapes._core, module()
    for user in users:
        user._core = simt
    try:
        yield
    finally:
        for user in users:
            user._core = core


def _run(*command):
    bin_dir = Path(sysconfig.get_path("scripts"))  # cmake and ninja of this environment
    env = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}
    env.pop("LD_PRELOAD", None)  # a sanitizer's library is for our process, and not for compilers
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
