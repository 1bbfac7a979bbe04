"""csrc/cuda/choose.cmake: whether CUDA kernels are built, and for which GPUs."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHOOSE = Path(__file__).resolve().parent.parent / "csrc" / "cuda" / "choose.cmake"
ALL = "75-real;80-real;86-real;89-real;90a-real;100-real;120"
KNOWN = "compute_75\ncompute_86\ncompute_90\ncompute_120\ncompute_121\n"


def program(path, text):
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def choose(folder, gpus, *, release="13.0", **options):
    """Run choose.cmake beside nvcc of a release (None: no nvcc) and GPUs (None: no driver)."""
    nvcc = folder / "nvcc"
    program(nvcc, f'[ $1 = --version ] && echo "release {release}, V1" || printf "{KNOWN}"')
    smi = f'printf "{gpus}"' if gpus is not None else "echo NVIDIA-SMI has failed; exit 9"
    program(folder / "nvidia-smi", smi)
    script = folder / "run.cmake"
    script.write_text(
        f'include("{CHOOSE.as_posix()}")\n'
        'message(STATUS "chosen ${STAPES_HAS_CUDA} ${CMAKE_CUDA_ARCHITECTURES}")\n'
    )
    options = {"Python_EXECUTABLE": sys.executable, **options}
    if release is not None:
        options["CMAKE_CUDA_COMPILER"] = nvcc
    else:
        nvcc.unlink()
        options["STAPES_NVCC"] = "STAPES_NVCC-NOTFOUND"
        options["CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH"] = "OFF"
        options["CMAKE_FIND_USE_CMAKE_SYSTEM_PATH"] = "OFF"
    scripts = sysconfig.get_path("scripts")  # where this environment's cmake is
    path = os.pathsep.join([str(folder), scripts, os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    command = [cmake, *(f"-D{k}={v}" for k, v in options.items()), "-P", str(script)]
    env = {k: v for k, v in os.environ.items() if k not in ("CUDACXX", "CUDA_HOME", "CUDA_PATH")}
    return subprocess.run(command, capture_output=True, text=True, env={**env, "PATH": path})


@pytest.mark.parametrize(
    ("gpus", "options", "chosen"),
    [
        ("8.6\\n", {}, "ON 86-real"),
        ("9.0\\n9.0\\n8.6\\n", {}, "ON 90a-real;86-real"),
        ("7.0\\n8.6\\n", {}, "ON 86-real"),
        ("13.0\\n", {}, "ON 120"),
        ("9.0\\n13.0\\n13.1\\n", {}, "ON 90a-real;120"),
        ("7.0\\n", {}, "OFF "),
        ("", {}, "OFF "),
        (None, {}, "OFF "),
        (None, {"STAPES_CUDA": "ON"}, f"ON {ALL}"),
        ("8.6\\n", {"STAPES_CUDA": "ON"}, "ON 86-real"),
        ("8.6\\n", {"STAPES_CUDA": "OFF"}, "OFF "),
        (None, {"STAPES_CUDA_ARCHITECTURES": "80-real;90a"}, "ON 80-real;90a"),
        ("8.6\\n", {"STAPES_CUDA_ARCHITECTURES": "80-real"}, "ON 80-real"),
        ("8.6\\n", {"release": "12.9"}, "OFF "),
        ("8.6\\n", {"release": None}, "OFF "),
    ],
)
def test_chosen(tmp_path, gpus, options, chosen):
    done = choose(tmp_path, gpus, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"-- chosen {chosen}"


@pytest.mark.parametrize(
    ("release", "told"), [("12.9", "is older than 13"), (None, "there is no nvcc: put it on PATH")]
)
def test_cuda_that_was_asked_for_and_cannot_be(tmp_path, release, told):
    done = choose(tmp_path, "8.6\\n", release=release, STAPES_CUDA="ON")
    assert done.returncode != 0
    assert "STAPES_CUDA=ON" in done.stderr
    assert told in " ".join(done.stderr.split())
