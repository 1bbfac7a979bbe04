"""The README's Python runs as it stands, in order, beside a folder of sounds."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_block(block, tmp_path):
    code = BLOCKS[block]
    if "import torch" in code and find_spec("torch") is None:
        pytest.skip("torch is not installed")
    rng = np.random.default_rng(0)
    for name, scale in (("quiet", 0.01), ("loud", 0.3)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(10):
            soundfile.write(
                tmp_path / "sounds" / name / f"{i}.wav", rng.normal(0, scale, 8000), 16000
            )
    soundfile.write(tmp_path / "new.wav", rng.normal(0, 0.01, 8000), 16000)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "predict_files" in code:
        assert "'class': 'quiet'" in done.stdout
