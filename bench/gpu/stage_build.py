"""Stage build: the package, with machine code for this GPU alone, into a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from context import ROOT, Context, NotRunError, run_logged, start
from machine import cuda_tool


def build(context: Context) -> None:
    """Install the package; keep the table of registers, shared memory and spills."""
    if context.cuda and cuda_tool("nvcc") is None:
        raise NotRunError("no nvcc: put it on PATH, or set CUDA_HOME")
    work = Path(context.work)
    # One variant of the CPU's kernels, which are not tested here: the build has but minutes.
    defines = {"STAPES_CUDA": "ON" if context.cuda else "OFF", "STAPES_FORCE_GENERIC": "ON"}
    if context.cuda:
        defines["STAPES_CUDA_ARCHITECTURES"] = f"{context.arch}-real"
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--upgrade"]
    command += ["--target", str(context.site), str(ROOT)]
    command += [f"--config-settings=build-dir={work / 'cmake'}"]
    command += [f"--config-settings=cmake.define.{k}={v}" for k, v in defines.items()]
    log = Path(context.out) / "build.log"
    nvcc = cuda_tool("nvcc")
    path = os.pathsep.join([*([str(Path(nvcc).parent)] if nvcc else []), os.environ["PATH"]])
    code = run_logged(command, log, context.left() - 5, {**os.environ, "PATH": path})
    if code is None:
        raise RuntimeError("time was up; the next build goes on from here")
    if code:
        context.record("errors", lines=errors(log.read_text(errors="replace")))
        raise RuntimeError(f"pip install: status {code}; see {log.name}")
    if context.cuda:
        kernel_table(context, work / "cmake")
    text = log.read_text(errors="replace")
    lines = (line.strip()[:200] for line in text.splitlines())
    warnings = sorted({line for line in lines if re.search(r"\bwarning\b", line)})
    context.record("built", **installed(context), defines=defines, warnings=warnings[:20])


def errors(text: str, count: int = 20) -> list[str]:
    """Return the first lines that tell of an error."""
    marks = ("error:", "error :", "Error", "FAILED:", "undefined")
    found = [line.strip()[:300] for line in text.splitlines() if any(m in line for m in marks)]
    return list(dict.fromkeys(found))[:count]


def installed(context: Context) -> dict[str, object]:
    """Return what the installed package says of itself."""
    code = (
        "import stapes, stapes.device as d; print(stapes.__file__); print(stapes.__version__);"
        "print(d.cuda_reason())"
    )
    # From another folder than the repository's, and without the sources on the path.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=context.work, env=context.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"import stapes: {done.stderr.strip().splitlines()[-1]}")
    file, version, reason = done.stdout.splitlines()
    if not Path(file).is_relative_to(context.site):
        raise RuntimeError(f"import stapes finds {file}, not what was installed")
    if context.cuda and reason != "None":
        raise RuntimeError(f"the package was built, but cannot use CUDA: {reason}")
    (module,) = context.site.glob("stapes/_core*.so")
    return {"version": version, "module_mib": round(module.stat().st_size / 2**20, 2)}


def kernel_table(context: Context, cmake: Path) -> None:
    """Keep what ptxas said of each kernel as OUT/kernels.md."""
    command = [sys.executable, "csrc/cuda/kernel_log.py", "table", str(cmake)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        context.record("kernels", count=0, spilling=[], reason=reason)
        return
    (Path(context.out) / "kernels.md").write_text(done.stdout)
    rows = [r.split("|") for r in done.stdout.splitlines() if r.startswith("| `")]
    spilling = [r[1].strip() for r in rows if not r[2].strip().endswith("/ 0")]
    context.record("kernels", count=len(rows), spilling=spilling, reason="")


if __name__ == "__main__":
    start(build)
