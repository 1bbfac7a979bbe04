"""What the measurements say of the targets: met, missed, or not measured."""

from __future__ import annotations

from typing import Any

Records = list[dict[str, Any]]
STEP_TARGETS = [  # batches, precision, against, least ratio
    ("32", "bf16", "fastest", 2.5), ("32", "fp32", "fastest", 2.5), ("32", "bf16", "eager", 10.0),
    ("32", "fp32", "eager", 10.0), ("512 and more", "bf16", "fastest", 2.0),
    ("512 and more", "fp32", "fastest", 2.5),
]  # fmt: skip
LIMIT_SHARE = 0.6


def step_rows(stages: dict[str, Records]) -> Records:
    """Return a row a configuration: all modes, with torch.compile's put beside the others.

    torch.compile is timed in a run of its own beside Stapes; its time is scaled by what Stapes took
    in both, so that ratios hold.
    """
    found = stages.get("step", [])
    rows = []
    for r in found:
        if r["kind"] != "step" or "seconds" not in r:
            continue
        modes = dict(r["seconds"])
        ours = min(v for k, v in modes.items() if k.startswith("stapes"))
        for c in found:
            same = all(c.get(k) == r[k] for k in ("channels", "batch", "precision"))
            if c["kind"] == "compiled" and same and "torch.compile" in c.get("seconds", {}):
                beside = min(v for k, v in c["seconds"].items() if k.startswith("stapes"))
                modes["torch.compile"] = c["seconds"]["torch.compile"] * ours / beside
        theirs = {k: v for k, v in modes.items() if not k.startswith("stapes")}
        if not theirs:
            continue
        fastest = min(theirs, key=lambda k: theirs[k])
        eager = next((v for k, v in theirs.items() if k.startswith("eager NCHW")), None)
        rows.append({
            **{k: r[k] for k in ("size", "channels", "batch", "precision", "flops")},
            "modes": modes, "ours": ours, "fastest": fastest,
            "ratio_fastest": theirs[fastest] / ours,
            "ratio_eager": None if eager is None else eager / ours,
            "losses": r.get("losses"),
        })  # fmt: skip
    return rows


def op_rows(stages: dict[str, Records]) -> Records:
    """Return a row a kernel, batch and precision: times with the cache flushed, ratio, share."""
    found = stages.get("ops", [])
    rows = []
    for r in found:
        if r["kind"] != "op" or "cold" not in r:
            continue
        modes = dict(r["cold"])
        for c in found:
            same = all(c.get(k) == r[k] for k in ("case", "batch", "precision"))
            if c["kind"] == "compiled" and same and "compiled" in c.get("cold", {}):
                scale = modes["stapes"] / c["cold"]["stapes"]
                modes["torch.compile"] = c["cold"]["compiled"] * scale
        theirs = {k: v for k, v in modes.items() if k != "stapes"}
        fastest = min(theirs, key=lambda k: theirs[k]) if theirs else ""
        rows.append({
            **{k: r[k] for k in ("case", "group", "batch", "precision", "bound", "limit")},
            "modes": modes, "ours": modes["stapes"], "warm": r["warm"]["stapes"],
            "fastest": fastest,
            "ratio": theirs[fastest] / modes["stapes"] if theirs else None,
            "share": r["limit"] / modes["stapes"], "errors": r.get("errors"),
        })  # fmt: skip
    return rows


def targets(stages: dict[str, Records]) -> Records:
    """Return a row a target, with the least ratio measured."""
    steps, kernels = step_rows(stages), op_rows(stages)
    rows = []
    for batches, precision, against, least in STEP_TARGETS:
        chosen = [
            r for r in steps
            if r["precision"] == precision
            and (r["batch"] == 32 if batches == "32" else r["batch"] >= 512)
        ]  # fmt: skip
        ratios = [r[f"ratio_{against}"] for r in chosen if r[f"ratio_{against}"] is not None]
        name = f"training step, batch {batches}, {precision}, against PyTorch's {against}"
        rows.append(_row(name, least, ratios, "x"))
    groups = [("conv + pool pairs against cuDNN", ("pair",), 1.5),
              ("first layers against cuDNN", ("first",), 1.5),
              ("3x3 convolutions at 64 to 128 channels against cuDNN", ("3x3",), 0.9)]  # fmt: skip
    for name, wanted, least in groups:
        ratios = [r["ratio"] for r in kernels if r["group"] in wanted and r["ratio"] is not None]
        rows.append(_row(name, least, ratios, "x"))
    large = [r["share"] for r in kernels if r["batch"] >= 512]
    rows.append(_row("each kernel, share of the limit that binds, batch 512 and more",
                     LIMIT_SHARE, large, ""))  # fmt: skip
    return rows


def _row(name: str, least: float, values: list[float], unit: str) -> dict[str, Any]:
    if not values:
        return {"target": name, "least": f"{least:g}{unit}", "status": "not measured",
                "measured": ""}  # fmt: skip
    reached = sum(v >= least for v in values)
    status = "met" if reached == len(values) else f"missed: {reached} of {len(values)} reach it"
    return {"target": name, "least": f"{least:g}{unit}", "status": status,
            "measured": f"{min(values):.2f} to {max(values):.2f}{unit}"}  # fmt: skip
