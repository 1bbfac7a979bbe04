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
    (tmp_path / "nvcc.py").write_text(NVCC)
    (tmp_path / "ptxas.txt").write_text(PTXAS.format(spilled=spilled))
    made = tmp_path / "kernel.o"
    nvcc = [sys.executable, str(tmp_path / "nvcc.py"), "-c", "kernel.cu", "-o", str(made)]
    done = subprocess.run(
        [sys.executable, str(KERNEL_LOG), mode, *nvcc], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(told)
    assert bool(done.stderr) is bool(told)
    assert made.exists() is (code == 0)
    (figures,) = json.loads((tmp_path / "kernel.o.ptxas.json").read_text())
    assert figures == {
        "kernel": "_Z4spilPf", "arch": "sm_80", "shared": 384, "registers": 40,
        "stack": 16, "spill_stores": spilled, "spill_loads": spilled,
    }  # fmt: skip
