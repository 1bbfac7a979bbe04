"""Stage test: the fragment self-test, then the operators' tests on the device.

Each test file is a process of its own, several at a time. Where one breaks the GPU for its process,
crashes or hangs, the tests after it are run in a new one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from context import ROOT, Context, NotRunError, read_records, run_logged, start
from machine import cuda_tool

HUNG = 60.0  # seconds without a test's beginning or end: the test is given up
STARTING = 90.0  # seconds until pytest knows its tests
SELFTEST = ROOT / "bench" / "gpu" / "fragments.cu"


@dataclass
class Outcomes:
    """What the tests of a file came to."""

    file: str
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    collected: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def missing(self) -> list[str]:
        """Tests that were not reached."""
        return [t for t in self.collected if t not in self.outcomes]


def test(context: Context) -> None:
    """Run all; fails where a test does."""
    fragments(context)
    files = operator_tests()
    have_bfloat16 = _importable("ml_dtypes")
    if not have_bfloat16:
        context.record("left_out", what="bfloat16", reason="ml_dtypes is not installed")
    jobs = min(8 if context.cuda else 1, os.cpu_count() or 1)
    context.record("plan", files=len(files), processes=jobs)
    results = []
    with ThreadPoolExecutor(jobs) as pool:
        for r in pool.map(lambda file: run_file(context, file), files):
            record_file(context, r)
            results.append(r)
    failed = sum(o["outcome"] == "failed" for r in results for o in r.outcomes.values())
    passed = sum(o["outcome"] == "passed" for r in results for o in r.outcomes.values())
    missing = sum(len(r.missing) for r in results)
    broken = [r.file for r in results if r.reason]
    if failed or broken:
        raise RuntimeError(f"{failed} tests failed; no tests from {broken}" if broken else
                           f"{failed} tests failed")  # fmt: skip
    if not passed:
        raise RuntimeError("no test ran")
    if missing:
        raise NotRunError(f"{passed} tests passed; time was up before {missing} more")


def operator_tests() -> list[str]:
    """Return the test files that run on a device, those that are quick to tell of a fault first."""
    takes_device = re.compile(r"def test_\w+\((?:\w+, )*(?:ops|device|cuda)\b")
    files = sorted((ROOT / "tests").glob("test_*.py"))
    chosen = [f for f in files if takes_device.search(f.read_text())]
    chosen += [f for f in files if "cuda" in f.name and f not in chosen]
    first = ("test_relu.py", "test_linear.py", "test_conv2d.py", "test_conv2d_fused.py")
    order = {name: i for i, name in enumerate(first)}
    chosen.sort(key=lambda f: order.get(f.name, len(first)))
    return [str(f.relative_to(ROOT)) for f in chosen]


def run_file(context: Context, file: str) -> Outcomes:
    """Run a file's tests for the device, in as many processes as it takes."""
    result = Outcomes(file)
    name = Path(file).stem
    arguments = [file]
    for turn in range(20):
        if context.left() < 5:
            break
        records = Path(context.work) / f"{name}.{turn}.jsonl"
        records.unlink(missing_ok=True)
        output = _pytest(context, arguments, records)
        found = read_records(records)
        begun = ""
        for r in found:
            if r["kind"] == "collected" and not result.collected:
                result.collected = r["tests"]
            elif r["kind"] == "begin":
                begun = r["test"]
            elif r["kind"] == "end":
                before = result.outcomes.get(r["test"])
                if before is None or before["outcome"] != "failed":  # a teardown may fail too
                    result.outcomes[r["test"]] = r
        if not found:
            result.reason = _last_line(output)
            break
        out_of_time = context.left() < 5
        if begun and begun not in result.outcomes and not out_of_time:
            why = ["the process hung or crashed here", *output.strip().splitlines()[-4:]]
            result.outcomes[begun] = {
                "outcome": "failed", "seconds": 0, "error": why, "broken": True
            }  # fmt: skip
        if not result.missing or not begun:
            break
        listed = Path(context.work) / f"{name}.arguments"
        listed.write_text("\n".join(result.missing))
        arguments = [f"@{listed}"]
    return result


def _pytest(context: Context, arguments: list[str], records: Path) -> str:
    """Run pytest until it ends, hangs or time is up; its output."""
    kind = "cuda" if context.cuda else "copied"  # tests/devices.py
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_records", "-W", "default"]
    command += ["-p", "no:cacheprovider", "--tb=short", *arguments]
    if not arguments[0].startswith("@"):
        command += ["-k", kind]
    here = str(Path(__file__).parent)
    env = context.environment(
        STAPES_TEST_DEVICES=kind, STAPES_TEST_RECORDS=str(records),
        OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2", PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], here])
    output = records.with_suffix(".txt")
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                started = records.exists()
                still = time.time() - (records if started else output).stat().st_mtime
                if context.left() < 4 or still > (HUNG if started else STARTING):
                    break
        finally:
            process.kill()
            process.wait()
    text = output.read_text(errors="replace")
    print(f"== {' '.join(command)}\n{text[-20000:]}", flush=True)
    return text


def record_file(context: Context, r: Outcomes) -> None:
    """Record a file's counts and failures."""
    outcomes = [o["outcome"] for o in r.outcomes.values()]
    context.record(
        "tests", file=r.file, passed=outcomes.count("passed"), failed=outcomes.count("failed"),
        skipped=outcomes.count("skipped"), not_reached=len(r.missing), reason=r.reason,
        seconds=round(sum(o["seconds"] for o in r.outcomes.values()), 1),
    )  # fmt: skip
    for name, o in r.outcomes.items():
        if o["outcome"] == "failed":
            context.record("failure", test=name, error=o["error"], broken=o["broken"])


def fragments(context: Context) -> None:
    """Run the matrix instructions by themselves: a wrong fragment explains many failures."""
    if not context.cuda:
        context.record("fragments", status="not run", reason="a rehearsal on the CPU", lines=[])
        return
    nvcc = cuda_tool("nvcc")
    program, log = Path(context.work) / "fragments", Path(context.work) / "fragments.log"
    log.unlink(missing_ok=True)
    kernels = [ROOT / "csrc" / "cuda" / name for name in ("fragment_selftest.cu", "runtime.cu")]
    arch = f"arch=compute_{context.arch},code=sm_{context.arch}"
    command = [str(nvcc), "-std=c++20", "-O2", "-gencode", arch, f"-I{ROOT / 'csrc'}"]
    command += [*map(str, [SELFTEST, *kernels]), "-o", str(program)]
    code = run_logged(command, log, min(90.0, context.left() / 2))
    if code == 0:
        code = run_logged([str(program)], log, min(30.0, context.left() / 2))
    status = "passed" if code == 0 else "failed"
    lines = log.read_text(errors="replace").splitlines()[-12:]
    print(json.dumps({"fragments": status, "lines": lines}), flush=True)
    context.record("fragments", status=status, reason="" if code == 0 else f"status {code}",
                   lines=lines)  # fmt: skip


def _importable(module: str) -> bool:
    code = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    return code.returncode == 0


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E ")]
    return (errors or lines or ["no output"])[-1][:300]


if __name__ == "__main__":
    start(test)
