"""OUT/report.json, all that was found, and OUT/report.md, what a reader needs of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from targets import op_rows, step_rows, targets

FAILURES = 60  # shown in the text; all are in the JSON


@dataclass
class Stage:
    """A stage and what came of it; ``status`` is "done", "failed" or "not run"."""

    name: str
    status: str
    reason: str
    seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of a kind."""
        return [r for r in self.records if r["kind"] == kind]


def write(out: Path, head: dict[str, Any], stages: list[Stage]) -> None:
    """Write both files anew."""
    found = {} if head["rehearsal"] else {s.name: s.records for s in stages}
    data = {**head, "targets": targets(found), "stages": [asdict(s) for s in stages]}
    _put(out / "report.json", json.dumps(data, indent=1) + "\n")
    _put(out / "report.md", "\n".join(_text(head, stages, data["targets"])) + "\n")


def _put(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Return a Markdown table, with an empty line after it."""
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    return [*lines, ""]


def _text(head: dict[str, Any], stages: list[Stage], goals: list[dict[str, Any]]) -> list[str]:
    gpu = head["gpu"]
    lines = [f"# Stapes on {gpu['name'] if gpu else 'no GPU'}", ""]
    if head["rehearsal"]:
        lines += ["**A rehearsal on the CPU, with tiny shapes: no figure says anything of a GPU.**",
                  ""]  # fmt: skip
    lines += [f"`{head['command']}`, {head['commit'] or 'no commit known'}, {head['started']}"
              f"{'' if 'finished' in head else ', not finished'}", ""]  # fmt: skip
    if gpu:
        lines += [", ".join(f"{k} {v}" for k, v in gpu.items() if k != "name"), ""]
    lines += [", ".join(f"{k} {v}" for k, v in head["software"].items()), "", "## Stages", ""]
    lines += table(["stage", "status", "s", "reason"],
                   [[s.name, s.status, f"{s.seconds:.0f}", s.reason] for s in stages])  # fmt: skip
    lines += ["## Targets", ""]
    columns = ["target", "least", "measured", "status"]
    lines += table(columns, [[g[c] for c in columns] for g in goals])
    sections: dict[str, Callable[[Stage], list[str]]] = {
        "build": _build, "test": _test, "sanitize": _sanitize, "ops": _ops, "step": _step
    }  # fmt: skip
    for stage in stages:
        if stage.records:
            lines += [f"## {stage.name.capitalize()}", "", *sections[stage.name](stage)]
    return lines


def _build(stage: Stage) -> list[str]:
    lines = []
    for r in stage.of("built"):
        lines += [f"Version {r['version']}, module {r['module_mib']} MiB, {r['defines']}", ""]
        lines += ["Warnings:", "", "```", *r["warnings"], "```", ""] if r["warnings"] else []
    for r in stage.of("kernels"):
        spills = ", ".join(r["spilling"]) or "none"
        lines += [r["reason"] or f"{r['count']} kernels (kernels.md); with spills: {spills}", ""]
    for r in stage.of("errors"):
        lines += ["```", *r["lines"], "```", ""]
    return lines


def _test(stage: Stage) -> list[str]:
    lines = []
    for r in stage.of("fragments"):
        lines += [f"Fragment self-test: {r['status']} {r['reason']}", ""]
        lines += ["```", *r["lines"], "```", ""] if r["lines"] else []
    for r in stage.of("left_out"):
        lines += [f"Not run: {r['what']}: {r['reason']}", ""]
    files = stage.of("tests")
    columns = ["passed", "failed", "skipped", "not_reached"]
    total = [sum(r[c] for r in files) for c in columns]
    rows = [[r["file"], *(r[c] for c in columns), r["seconds"], r["reason"]] for r in files]
    lines += table(["file", "passed", "failed", "skipped", "not reached", "s", "why nothing ran"],
                   [*rows, ["all", *total, "", ""]])  # fmt: skip
    failures = stage.of("failure")
    for r in failures[:FAILURES]:
        mark = " (and the GPU was unusable after it)" if r["broken"] else ""
        lines += [f"- `{r['test']}`{mark}", "", *(f"      {line}" for line in r["error"]), ""]
    if len(failures) > FAILURES:
        lines += [f"and {len(failures) - FAILURES} more failures, in report.json", ""]
    return lines


def _sanitize(stage: Stage) -> list[str]:
    rows = stage.of("sanitizer")
    lines = table(
        ["tool", "status", "calls", "errors", "reason"],
        [[r["tool"], r["status"], r.get("calls", ""),
          r.get("errors", ""), r["reason"]] for r in rows],
    )  # fmt: skip
    for r in rows:
        for text in [*r.get("raised", []), *r.get("first", [])]:
            lines += [f"{r['tool']}:", "```", text, "```", ""]
    return lines


def _limits(stage: Stage) -> list[str]:
    return [
        f"Measured limits: copy {r['copy'] / 1e9:.0f} GB/s, products in TFLOP/s: "
        + ", ".join(f"{k} {r[k] / 1e12:.1f}" for k in ("bf16", "fp16", "tf32", "fp32")) + "\n"
        for r in stage.of("peaks")
    ]  # fmt: skip


def _ops(stage: Stage) -> list[str]:
    lines = _limits(stage)
    lines += ["Times in microseconds with the cache flushed (ours also with the inputs in the "
              "cache); share: of the limit that binds; ratio: fastest of PyTorch over ours; error "
              "against float64: ours / PyTorch's.", ""]  # fmt: skip
    rows = op_rows({"ops": stage.records})
    groups = dict.fromkeys((r["batch"], r["precision"]) for r in rows)
    for batch, precision in groups:
        lines += [f"### Batch {batch}, {precision}", ""]
        chosen = [r for r in rows if (r["batch"], r["precision"]) == (batch, precision)]
        lines += table(
            ["kernel", "ours", "warm", "share", "bound", "PyTorch", "fastest", "ratio", "error"],
            [[r["case"], _us(r["ours"]), _us(r["warm"]), f"{100 * r['share']:.0f} %", r["bound"],
              _others(r["modes"], "stapes", _us), r["fastest"], _ratio(r["ratio"]),
              _errors(r["errors"])] for r in chosen],
        )  # fmt: skip
    failed = [r for r in stage.of("op") if "error" in r]
    failed += [r for r in stage.of("compiled") if "error" in r]
    lines += [f"- {r['case']}, batch {r['batch']}, {r['precision']}: {r['error']}" for r in failed]
    left_out = [r for r in stage.of("op") if "left_out" in r]
    for r in left_out:
        for mode, why in r["left_out"].items():
            lines.append(f"- not run: {r['case']}, {r['batch']}, {r['precision']}, {mode}: {why}")
    return [*lines, ""]


def _step(stage: Stage) -> list[str]:
    lines = _limits(stage)
    lines += [
        "Milliseconds a step, by the host's clock over a loop of steps, ratio: PyTorch's time over "
        "ours. Inputs are on the device but where 'from host' and 'train_on_batch' have them "
        "on the host; train_on_batch waits for each step's loss, the others do not.",
        "",
    ]
    rows = step_rows({"step": stage.records})
    lines += table(
        ["input", "batch", "precision", "ours", "TFLOP/s", "PyTorch", "fastest", "ratio",
         "ratio to eager", "loss, ours / PyTorch's"],
        [[f"{r['size']}x{r['size']}x{r['channels']}", r["batch"], r["precision"],
          _others({k: v for k, v in r["modes"].items() if k.startswith("stapes")}, "", _ms),
          f"{r['flops'] / r['ours'] / 1e12:.1f}",
          _others({k: v for k, v in r["modes"].items() if not k.startswith("stapes")}, "", _ms),
          r["fastest"], _ratio(r["ratio_fastest"]), _ratio(r["ratio_eager"]),
          _losses(r["losses"])] for r in rows],
    )  # fmt: skip
    for r in [*stage.of("step"), *stage.of("compiled")]:
        which = f"{r['channels']} channels, batch {r['batch']}, {r['precision']}"
        if "error" in r:
            lines.append(f"- {which}: {r['error']}")
        if "not_run" in r:
            lines.append(f"- not run: torch.compile, {which}: {r['not_run']}")
        for mode, why in r.get("left_out", {}).items():
            lines.append(f"- not run: {which}, {mode}: {why}")
    return [*lines, ""]


def _others(modes: dict[str, float], but: str, show: Callable[[float], str]) -> str:
    return ", ".join(f"{name} {show(t)}" for name, t in modes.items() if name != but)


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _errors(found: dict[str, float] | None) -> str:
    return "" if not found else f"{found['stapes']:.1e} / {found['torch']:.1e}"


def _losses(found: dict[str, float] | None) -> str:
    return "" if not found else f"{found['stapes']:.4f} / {found['torch']:.4f}"
