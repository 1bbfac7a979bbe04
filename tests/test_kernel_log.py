"""csrc/cuda/kernel_log.py: what becomes of a kernel that spills registers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL_LOG = Path(__file__).resolve().parent.parent / "csrc" / "cuda" / "kernel_log.py"
PTXAS = """\
ptxas info    : Compiling entry function '_Z4spilPf' for 'sm_80'
ptxas info    : Function properties for _Z4spilPf
    16 bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads
ptxas info    : Used 40 registers, 384 bytes smem
"""
NVCC = """
import sys
from pathlib import Path
Path(sys.argv[sys.argv.index("-o") + 1]).write_text("object")
sys.stderr.write(Path(__file__).with_name("ptxas.txt").read_text())
"""


def compiled(folder, mode, ptxas):
    """Run kernel_log.py over an nvcc that prints this; return the object's path and the run."""
    (folder / "nvcc.py").write_text(NVCC)
    (folder / "ptxas.txt").write_text(ptxas)
    made = folder / "kernel.o"
    nvcc = [sys.executable, str(folder / "nvcc.py"), "-c", "kernel.cu", "-o", str(made)]
    command = [sys.executable, str(KERNEL_LOG), mode, *nvcc]
    return made, subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="there is no c++filt")
@pytest.mark.parametrize(
    ("mode", "spilled", "code", "told"),
    [
        ("compile", 0, 0, ""),
        ("compile", 8, 1, "error: spil (sm_80): 8 bytes of registers spilled"),
        ("report", 0, 0, ""),
        ("report", 8, 0, "warning: spil (sm_80): 8 bytes of registers spilled"),
    ],
)
def test_spills(tmp_path, mode, spilled, code, told):
    made, done = compiled(tmp_path, mode, PTXAS.format(spilled=spilled))
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(told)
    assert bool(done.stderr) is bool(told)
    assert made.exists() is (code == 0)
    (figures,) = json.loads((tmp_path / "kernel.o.ptxas.json").read_text())
    assert figures == {
        "kernel": "_Z4spilPf", "arch": "sm_80", "shared": 384, "registers": 40,
        "stack": 16, "spill_stores": spilled, "spill_loads": spilled,
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="there is no c++filt")
@pytest.mark.parametrize(
    ("arch", "code"), [("sm_100", 0), ("sm_103", 0), ("sm_10", 1), ("sm_80", 1)]
)
def test_kernel_that_may_spill(tmp_path, arch, code):
    """One that spills.txt names, for several architectures."""
    kernel = "_Z16pooled_dx_kernelIfLi4ENS0_9PoolTilesILi0EEEvv"
    text = PTXAS.format(spilled=24).replace("_Z4spilPf", kernel).replace("sm_80", arch)
    made, done = compiled(tmp_path, "compile", text)
    assert done.returncode == code, done.stderr
    assert made.exists() is (code == 0)
