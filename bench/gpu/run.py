"""The stages one after another, within a time limit; see bench/gpu.sh.

Every stage is a program of its own, so that none can take the others down, and is killed where it
does not end itself in time. The report is written anew after each.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from context import ROOT, Context, NotRunError, read_records, shorten
from machine import architecture, find_gpu, software
from report import Stage, write

HERE = Path(__file__).resolve().parent
SECONDS = 520.0  # of the 540 allowed: ending and reporting takes some
GRACE = 5.0  # seconds between a stage's deadline and its being killed

# In order of worth, with their shares of the time that is left when they begin, were all to come.
SHARES = {"build": 0.0, "test": 3.0, "sanitize": 1.5, "ops": 2.5, "step": 3.0}
BUILD_SECONDS = 420.0


def main() -> int:
    """Run the stages; 1 where one failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stage is ended too
    parser = argparse.ArgumentParser(prog="bench/gpu.sh")
    parser.add_argument("out", type=Path, help="folder of the report")
    parser.add_argument("stages", nargs="*", metavar="|".join(SHARES))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_intermixed_args()
    unknown = set(args.stages) - set(SHARES)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    asked = args.stages or list(SHARES)
    # The stages need the build, so it always comes first; it is quick where nothing has changed.
    names = [name for name in SHARES if name in asked or name == "build"]
    end = time.time() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    head = {
        "command": " ".join(["bench/gpu.sh", *sys.argv[1:]]),
        "commit": _commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rehearsal": args.device == "cpu",
    }
    stages = [Stage(name, "not run", "not reached") for name in names]
    build = stages[0]
    no_device = ""
    gpu: dict[str, Any] = {}
    if args.device == "cuda":
        try:
            gpu = find_gpu()
        except NotRunError as e:
            no_device = str(e)
    head |= {"gpu": gpu or None, "no_device": no_device, "software": software()}
    write(out, head, stages)
    arch = architecture(gpu["capability"]) if gpu else ""
    for stage in stages:
        if no_device:
            stage.reason = no_device
        elif stage is not build and build.status != "done":
            told = "the build failed" if build.status == "failed" else "no build"
            stage.reason = f"{told}: {build.reason}"
        else:
            deadline = time.time() + _allowed(stage.name, names, end - time.time())
            run_stage(stage, out, args.device, arch, deadline)
        write(out, head, stages)
        print(f"{stage.name}: {stage.status} {stage.reason} ({stage.seconds:.0f} s)", flush=True)
    head["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write(out, head, stages)
    print(f"{out / 'report.md'}")
    return int(any(stage.status == "failed" for stage in stages))


def run_stage(stage: Stage, out: Path, device: str, arch: str, deadline: float) -> None:
    """Run one stage as a program, and take over what it found."""
    work = ROOT / "build" / f"gpu-{device}"
    work.mkdir(parents=True, exist_ok=True)
    records = work / f"{stage.name}.jsonl"
    records.unlink(missing_ok=True)
    log = out / f"{stage.name}.log"
    told = work / f"{stage.name}.context.json"
    context = Context(device, arch, deadline, str(work), str(out), str(records))
    context.save(told)
    begin = time.time()
    if deadline - begin < 5:
        stage.reason = "no time was left"
        return
    # What a stage's functions print goes to its log; so does what its own programs say.
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", str(HERE / f"stage_{stage.name}.py"), str(told)],
            stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=context.environment(),
        )  # fmt: skip
        try:
            code: int | None = process.wait(deadline - begin + GRACE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    stage.seconds = time.time() - begin
    shorten(log)
    found = read_records(records)
    ends = [r for r in found if r["kind"] == "end"]
    stage.records = [r for r in found if r["kind"] != "end"]
    if ends:
        stage.status, stage.reason = ends[-1]["status"], ends[-1]["reason"]
    elif code is None:
        stage.status, stage.reason = "failed", "was killed: it did not end in time"
    else:
        stage.status, stage.reason = "failed", f"crashed with status {code}; see {log.name}"


def end(process: subprocess.Popen[bytes]) -> None:
    """End a stage that still runs: first so that it ends what it started itself."""
    for stop in (process.terminate, process.kill):
        if process.poll() is None:
            stop()
            with suppress(subprocess.TimeoutExpired):
                process.wait(3)


def _allowed(name: str, names: list[str], left: float) -> float:
    if name == "build":
        return min(BUILD_SECONDS, left)
    coming = names[names.index(name) :]
    return left * SHARES[name] / sum(SHARES[n] for n in coming)


def _commit() -> str:
    if shutil.which("git") is None:
        return ""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
