"""Stage sanitize: compute-sanitizer's four tools over a call or two of every operator."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from context import Context, NotRunError, run_logged, start
from machine import cuda_tool

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
CALLS = Path(__file__).with_name("one_call_each.py")
REFUSALS = (
    "Device not supported", "not supported on this", "No CUDA-capable", "Unable to find injection",
    "Target application terminated before first instrumented API call",
    "Failed to initialize", "could not be loaded",
)  # fmt: skip


def sanitize(context: Context) -> None:
    """Run the calls plainly, then under each tool; fails where a tool or a call finds an error."""
    plain = Path(context.work) / "calls.log"
    plain.unlink(missing_ok=True)
    calls = [sys.executable, "-u", str(CALLS), context.device]
    code = run_logged(calls, plain, context.left() / 5, context.environment())
    told = summary("plain run", plain.read_text(errors="replace"), code)
    context.record("sanitizer", **told)
    found = [told]
    tool_path = cuda_tool("compute-sanitizer") if context.cuda else None
    reason = "compute-sanitizer is not there" if context.cuda else "a rehearsal on the CPU"
    for i, tool in enumerate(TOOLS):
        if tool_path is None:
            told = {"tool": tool, "status": "not run", "reason": reason}
        elif context.left() < 15:
            told = {"tool": tool, "status": "not run", "reason": "time was up"}
        else:
            log = Path(context.work) / f"{tool}.log"
            log.unlink(missing_ok=True)
            command = [tool_path, "--tool", tool, "--print-limit", "40", *calls]
            seconds = (context.left() - 5) / (len(TOOLS) - i)
            code = run_logged(command, log, seconds, context.environment())
            text = log.read_text(errors="replace")
            print(f"== {' '.join(command)}\n{text[-200_000:]}", flush=True)
            told = summary(tool, text, code)
        context.record("sanitizer", **told)
        found.append(told)
    bad = [t["tool"] for t in found if t["status"] == "failed"]
    if bad:
        raise RuntimeError(f"errors under: {', '.join(bad)}")
    unrun = [t for t in found if t["status"] == "not run"]
    if unrun:
        names = ", ".join(t["tool"] for t in unrun)
        raise NotRunError(f"{names}: {unrun[0]['reason']}")


def summary(tool: str, text: str, code: int | None) -> dict[str, Any]:
    """Return what a tool's output says: passed only where it came to its end and found nothing."""
    calls = re.findall(r"^CALL (.*)$", text, re.MULTILINE)
    totals = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", text)
    counted = sum(int(a or b) for a, b in totals)
    raised = re.findall(r"^ERROR (.*)$", text, re.MULTILINE)
    ended = "\nEND " in text
    told = {"tool": tool, "calls": len(calls), "errors": counted, "raised": raised[:5]}
    told["first"] = _first_findings(text)
    # Where the tool refuses the device, the calls fail for that, and nothing was looked at.
    said = [line for line in text.splitlines() if not line.startswith("ERROR ")]
    refused = next((line for line in said if any(mark in line for mark in REFUSALS)), None)
    if refused is not None and not counted:
        return told | {"status": "not run", "reason": f"the tool says: {refused[:200]}"}
    if counted or raised:
        return told | {
            "status": "failed",
            "reason": f"{counted} errors, {len(raised)} calls raised",
        }
    if code is None:
        last = calls[-1] if calls else "no call"
        return told | {
            "status": "not run",
            "reason": f"time was up in {last}; nothing found so far",
        }
    if not ended or code or (tool != "plain run" and not totals):
        told["first"] = told["first"] or ["\n".join(text.strip().splitlines()[-6:])]
        return told | {"status": "failed", "reason": f"ended with status {code} before its end"}
    return told | {"status": "passed", "reason": ""}


def _first_findings(text: str, count: int = 4, length: int = 8) -> list[str]:
    """Return the beginnings of the first blocks a tool printed of an error."""
    lines = [line[len("========= ") :] for line in text.splitlines() if line.startswith("=====")]
    marks = ("Invalid", "Error:", "Warning:", "Uninitialized", "Race reported", "Barrier error",
             "Program hit", "Misaligned", "Potential")  # fmt: skip
    starts = [i for i, line in enumerate(lines) if line.startswith(marks)]
    return ["\n".join(lines[i : i + length]) for i in starts[:count]]


if __name__ == "__main__":
    start(sanitize)
