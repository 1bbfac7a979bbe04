"""bench/gpu.sh on a machine without a GPU, and its parts, as far as they run on the CPU."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import re
import subprocess
import sys
import time
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import stapes.ops

ROOT = Path(__file__).resolve().parent.parent
STAGES = ["build", "test", "sanitize", "ops", "step"]


@pytest.fixture
def part(monkeypatch):
    """A module of bench/gpu by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "gpu"))
    return importlib.import_module


@pytest.fixture
def context(part, tmp_path):
    """What a stage of a rehearsal on the CPU is told."""
    records = str(tmp_path / "records.jsonl")
    folder = str(tmp_path)
    return part("context").Context("cpu", "", time.time() + 120, folder, folder, records)


def gpu_script(*arguments):
    return subprocess.run(
        ["bash", str(ROOT / "bench" / "gpu.sh"), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True,
    )  # fmt: skip


def without_gpu():
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) != 0
    except OSError:
        return True


@pytest.mark.skipif(not without_gpu(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("asked", "stages"), [([], STAGES), (["step", "ops"], ["build", "ops", "step"])]
)
def test_without_a_device(tmp_path, asked, stages):
    done = gpu_script(tmp_path / "out", *asked)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [s["name"] for s in report["stages"]] == stages
    assert {s["status"] for s in report["stages"]} == {"not run"}
    assert all(s["reason"].startswith("no device") for s in report["stages"])
    assert {t["status"] for t in report["targets"]} == {"not measured"}
    assert report["gpu"] is None
    assert "finished" in report
    text = (tmp_path / "out" / "report.md").read_text()
    for name in stages:
        assert f"| {name} | not run |" in text
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_unknown_stage(tmp_path):
    done = gpu_script(tmp_path, "bild")
    assert done.returncode == 2
    assert "no such stage: bild" in done.stderr


def test_a_stage_that_crashes_hangs_or_leaves_parts_out(part, tmp_path, monkeypatch):
    run, report = part("run"), part("report")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "GRACE", 0.5)
    lead = f"import sys; sys.path.insert(0, {str(ROOT / 'bench' / 'gpu')!r})\n"
    lead += "import os, time\nfrom context import NotRunError, start\n"
    lead += "def stage(context):\n    context.record('found', value=1)\n"
    endings = {
        "good": ("pass", "done", ""),
        "bad": ("raise ValueError('no good')", "failed", "ValueError: no good"),
        "partly": ("raise NotRunError('half')", "not run", "half"),
        "crashed": ("os._exit(7)", "failed", "crashed with status 7; see crashed.log"),
        "slow": ("time.sleep(100)", "not run", "time was up before its end"),
    }
    for name, (code, status, reason) in endings.items():
        (tmp_path / f"stage_{name}.py").write_text(f"{lead}    {code}\nstart(stage)\n")
        stage = report.Stage(name, "not run", "not reached")
        run.run_stage(stage, tmp_path, "cpu", "", time.time() + (5.5 if name == "slow" else 60))
        assert (stage.status, stage.reason) == (status, reason)
        assert stage.records == [{"kind": "found", "value": 1}]


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [("done", 0, ""), ("failed", 1, "the build failed: why"), ("not run", 0, "no build: why")],
)
def test_nothing_runs_without_a_build(part, tmp_path, monkeypatch, status, code, told):
    run, ran = part("run"), []

    def run_stage(stage, *_):
        ran.append(stage.name)
        stage.status, stage.reason = (status, "why") if stage.name == "build" else ("done", "")

    monkeypatch.setattr(run, "run_stage", run_stage)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path), "--device", "cpu", "ops", "step"])
    assert run.main() == code
    later = json.loads((tmp_path / "report.json").read_text())["stages"][1:]
    assert ran == ["build"] + (["ops", "step"] if status == "done" else [])
    assert {s["status"] for s in later} == {"done" if status == "done" else "not run"}
    assert {s["reason"] for s in later} == {told}


def test_cudas_programs_are_found_where_cuda_is_said_to_be(part, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    tool = "a-tool-of-cudas"
    assert part("machine").cuda_tool(tool) is None
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        made = tmp_path / variable / "bin" / tool
        made.parent.mkdir(parents=True)
        made.touch()
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert part("machine").cuda_tool(tool) == str(made)


def test_every_operators_tests_are_found(part):
    found = part("stage_test").operator_tests()
    for name in ("relu", "conv2d", "conv2d_fused", "batch_norm", "optim_steps", "cross_entropy"):
        assert f"tests/test_{name}.py" in found
    assert {"tests/test_device_step.py", "tests/test_log_mel_op.py"} <= set(found)
    assert "tests/test_features.py" not in found


FAULTY = """
import os, time, pytest

@pytest.fixture(params=["copied"])
def on(request): pass

def test_good(on): pass
def test_bad(on): assert 1 == 2
def test_skipped(on): pytest.skip("not today")
def test_crash(on): os._exit(3)
def test_sticky(on): raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access")
def test_after(on): pass
def test_hang(on): time.sleep(1000)
def test_last(on): pass
"""


def test_tests_go_on_after_a_crash_a_hang_and_a_broken_gpu(part, context, tmp_path, monkeypatch):
    stage = part("stage_test")
    monkeypatch.setattr(stage, "HUNG", 8.0)
    monkeypatch.setattr(stage, "ROOT", tmp_path)
    file = tmp_path / "test_faulty.py"
    file.write_text(FAULTY)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    result = stage.run_file(context, str(file))
    names = ("good", "bad", "skipped", "crash", "sticky", "after", "hang", "last")
    by_name = {t.split("test_")[-1].removesuffix("[copied]"): o for t, o in result.outcomes.items()}
    assert [by_name[n]["outcome"] for n in names] == [
        "passed", "failed", "skipped", "failed", "failed", "passed", "failed", "passed"
    ]  # fmt: skip
    assert by_name["bad"]["error"][0] == "assert 1 == 2"
    assert [n for n in names if by_name[n].get("broken")] == ["crash", "sticky", "hang"]
    assert not result.missing


CALLS = "CALL float32 relu_fwd\nCALL float32 relu_bwd\n"
CLEAN = f"========= COMPUTE-SANITIZER\n{CALLS}END 0 failed\n========= ERROR SUMMARY: 0 errors\n"
RACE = f"""========= COMPUTE-SANITIZER
{CALLS}========= Error: Race reported between Write access at relu_kernel+0x10
=========     and Read access at relu_kernel+0x90 [64 hazards]
END 0 failed
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""


REFUSED = """========= COMPUTE-SANITIZER
========= Error: Device not supported.
CALL float32 relu_fwd
ERROR RuntimeError: kernel launch: unknown error
END 1 failed
========= ERROR SUMMARY: 0 errors
"""


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        (CLEAN, 0, "passed"),
        (REFUSED, 1, "not run"),
        (REFUSED.replace("0 errors", "2 errors"), 1, "failed"),
        (CLEAN.replace("END 0", "ERROR OSError: libx could not be loaded\nEND 1"), 1, "failed"),
        (RACE, 0, "failed"),
        (CLEAN.replace("0 errors", "3 errors"), 0, "failed"),
        (CLEAN.replace("END 0", "ERROR RuntimeError: none yet\nEND 1"), 1, "failed"),
        ("========= COMPUTE-SANITIZER\n========= Error: Device not supported.\n", 1, "not run"),
        (CALLS, None, "not run"),
        (CALLS, -11, "failed"),
        (CLEAN.replace("========= ERROR SUMMARY: 0 errors\n", ""), 0, "failed"),
    ],
)
def test_what_a_sanitizers_output_says(part, text, code, status):
    told = part("stage_sanitize").summary("memcheck", text, code)
    assert told["status"] == status
    assert told["status"] == "passed" or told["reason"]
    if text is RACE:
        assert told["first"][0].startswith("Error: Race reported between Write access")


def test_calls_of_every_operator_run(part, capsys):
    assert part("one_call_each").main("cpu") == 0
    called = re.findall(r"^CALL float32 (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert set(called) == set(stapes.ops.__all__) - {"NormConv"}  # which is an argument


def test_targets(part):
    modes = {"stapes": 1e-3, "eager NCHW": 12e-3, "channels_last": 4e-3, "graph NCHW": 3e-3}
    step = {"kind": "step", "size": 64, "channels": 3, "batch": 32, "precision": "fp32",
            "flops": 1, "seconds": modes}  # fmt: skip
    # Half as fast in its own run as above: what counts is the ratio within it.
    compiled = {"kind": "compiled", "channels": 3, "batch": 32, "precision": "fp32",
                "seconds": {"stapes": 2e-3, "torch.compile": 4e-3}}  # fmt: skip
    op = {"kind": "op", "case": "conv", "group": "3x3", "batch": 512, "precision": "bf16",
          "bound": "flops", "limit": 0.7, "cold": {"stapes": 1.0, "eager": 2.0, "graph": 0.8},
          "warm": {"stapes": 1.0}}  # fmt: skip
    rows = part("targets").targets({"step": [step, compiled], "ops": [op]})
    status = {r["target"]: (r["measured"], r["status"]) for r in rows}
    fastest = status["training step, batch 32, fp32, against PyTorch's fastest"]
    assert fastest == ("2.00 to 2.00x", "missed: 0 of 1 reach it")
    eager = status["training step, batch 32, fp32, against PyTorch's eager"]
    assert eager == ("12.00 to 12.00x", "met")
    conv = status["3x3 convolutions at 64 to 128 channels against cuDNN"]
    assert conv == ("0.80 to 0.80x", "missed: 0 of 1 reach it")
    assert status["conv + pool pairs against cuDNN"] == ("", "not measured")


def test_cases_compute_what_torch_computes(part, monkeypatch):
    pytest.importorskip("torch")
    device, stage = part("device"), part("stage_ops")
    monkeypatch.setattr(device, "FIRST_CALLS", 1)
    cpu = device.Device("cpu")
    monkeypatch.setattr(cpu, "interleave", lambda f, **_: {k: f[k]() is None or 1.0 for k in f})
    limits = {"copy": 1e9, "fp32": 1e9}
    for case in part("cases").all_cases():
        found = stage.one_case(cpu, case, 1, "fp32", limits, 0.0)
        assert "error" not in found, found
        assert "left_out" not in found, found
        assert found["limit"] > 0
        if case.compared:
            assert found["errors"]["stapes"] < 1e-5, found
            assert found["errors"]["torch"] < 1e-5, found


def test_steps_learn_as_torch_does(part):
    pytest.importorskip("torch")
    cpu = part("device").Device("cpu")
    found = part("stage_step").one_config(cpu, 8, 3, 2, "fp32", seconds=0.0)
    assert "error" not in found, found
    assert "left_out" not in found, found
    assert set(found["seconds"]) == {
        "stapes", "stapes train_on_batch", "eager NCHW", "channels_last", "graph NCHW",
        "graph channels_last",
    }  # fmt: skip
    np.testing.assert_allclose(found["losses"]["stapes"], found["losses"]["torch"], rtol=1e-3)


def test_compiling_starts_anew_and_for_the_very_shapes(part, monkeypatch):
    torch = pytest.importorskip("torch")
    calls = mock.Mock()
    monkeypatch.setattr(torch, "compile", calls.compile)
    monkeypatch.setattr(torch.compiler, "reset", calls.reset)
    cpu = part("device").Device("cpu")
    part("seed_network").Theirs(8, 3, cpu).compile(mode="max-autotune")
    wanted = mock.call.compile(mock.ANY, dynamic=False, mode="max-autotune")
    assert calls.mock_calls == [mock.call.reset(), wanted]
    folder = ROOT / "bench" / "gpu"
    assert [f.name for f in folder.glob("*.py") if "torch.compile(" in f.read_text()] == [
        "device.py"
    ]


class Cycle:
    """Goes only when garbage is collected."""

    def __init__(self):
        self.itself = self


def test_garbage_is_collected_before_a_capture_and_before_memory_is_given_back(part, monkeypatch):
    pytest.importorskip("torch")
    device = part("device")
    gpu = device.Device("cpu")
    gpu.cuda, gpu.xp = True, mock.MagicMock()
    torch = mock.MagicMock()
    monkeypatch.setattr(device, "torch", torch)

    def gone(then):
        garbage = weakref.ref(Cycle())
        then.side_effect = lambda *_: seen.append(garbage() is None) or mock.DEFAULT

    seen = []
    gone(torch.cuda.graph)
    states = []
    gpu.captured(lambda: states.append(gc.isenabled()))
    assert states == [True] * device.FIRST_CALLS + [False]
    assert gc.isenabled()
    gone(torch.cuda.empty_cache)
    gpu.release()
    assert seen == [True, True]


def test_timing_is_by_turns(part):
    pytest.importorskip("torch")
    cpu = part("device").Device("cpu")
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = cpu.interleave(functions, seconds=0.0, least=3)
    assert "".join(calls) == "aaabbb" + "ab" * 3
    assert set(times) == {"a", "b"}
    slow = cpu.interleave_steps({"sleep": lambda: time.sleep(0.002)}, seconds=0.0, least=1)
    assert 0.002 <= slow["sleep"] < 0.2
