"""Stage ops: each kernel beside PyTorch's, and beside what the machine can move and multiply."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from case import Case
from cases import all_cases
from context import Context, NotRunError, first_line, start
from device import Device, compiled, peaks
from pytest_records import STICKY

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
          "fp16": torch.float16}  # fmt: skip
# In order of worth; what time does not suffice for is reported as not reached.
ROUNDS = [(512, "bf16"), (512, "fp32"), (32, "bf16"), (32, "fp32"), (512, "tf32"), (2048, "bf16"),
          (2048, "fp32"), (32, "tf32"), (128, "bf16"), (128, "fp32"), (2048, "tf32"),
          (128, "tf32"), (512, "fp16"), (32, "fp16")]  # fmt: skip
COMPILED = [(512, "bf16"), (32, "bf16"), (512, "fp32"), (32, "fp32")]
COMPILE_SHARE = 0.25  # of the time, for torch.compile, which takes long for each function
COMPILE_SECONDS = 45.0  # without which none is begun
SECONDS = 0.05  # a case's repeats: as often flushed as warm
ERRORS_AT = 512  # the batch size for which errors against float64 are computed


def measure(context: Context) -> None:
    """Measure case after case until time is up."""
    device = Device(context.device)
    limits = peaks(device)
    context.record("peaks", **limits)
    rounds = ROUNDS if context.cuda else [(2, "fp32")]
    begin, total = time.time(), context.left()
    seconds = SECONDS if context.cuda else 0.0
    reached, skipped, failed, measured_once = 0, 0, 0, set()
    for batch, precision in rounds:
        device.tf32(precision == "tf32")
        for case in all_cases():
            if precision == "tf32" and not case.multiplies:
                continue
            if case.fp32_only and precision != "fp32":
                continue
            if case.batch_free and case.name in measured_once:
                continue
            used = time.time() - begin
            if used > total * (1 - COMPILE_SHARE) - 3:
                skipped += 1
                continue
            measured_once.add(case.name)
            found = one_case(device, case, batch, precision, limits, seconds)
            context.record("op", **found)
            failed += "error" in found
            reached += 1
        device.release()
    compile_ended = compiled_cases(context, device)
    if failed:
        raise RuntimeError(f"{failed} of {reached} cases failed")
    if skipped or compile_ended:
        text = f"{reached} measured"
        text += f"; time was up before {skipped} more" if skipped else ""
        text += f"; torch.compile: {compile_ended}" if compile_ended else ""
        raise NotRunError(text)


def one_case(
    device: Device, case: Case, batch: int, precision: str, limits: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Return the times of one case, its limit and its errors; or the error that it raised."""
    told: dict[str, Any] = {
        "case": case.name, "group": case.group, "batch": batch, "precision": precision
    }  # fmt: skip
    try:
        inputs = made_inputs(device, case, batch, DTYPES[precision])
        ours, results, moved = our_side(device, case, inputs, precision)
        ours()
        device.synchronize()
        functions = {"stapes": ours}
        for mode, make in their_side(device, case, inputs):
            try:
                f = make()
                f()
                device.synchronize()
                functions[mode] = f
            except Exception as e:
                stop_where_broken(e)
                told.setdefault("left_out", {})[mode] = first_line(e)
        told["cold"] = device.interleave(functions, seconds=seconds, cold=True)
        told["warm"] = device.interleave(functions, seconds=seconds)
        flops = case.flops(batch)
        by_bytes, by_flops = moved / limits["copy"], flops / limits[precision]
        told |= {"flops": flops, "bytes": moved, "limit": max(by_bytes, by_flops),
                 "bound": "bytes" if by_bytes >= by_flops else "flops"}  # fmt: skip
        if case.compared and batch <= ERRORS_AT:
            told["errors"] = errors(device, case, inputs, results)
    except Exception as e:
        stop_where_broken(e)
        told["error"] = first_line(e)
    return told


def made_inputs(
    device: Device, case: Case, batch: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return random inputs in our layout."""
    made = {}
    for name, shape in case.shapes(batch).items():
        if name == "ids":
            made[name] = device.integers(1000, *shape)
            continue
        wide = name in case.wide
        scale = 1 / math.sqrt(math.prod(shape[1:])) if name == "w" else 1.0
        made[name] = scale * device.normal(*shape)
        if name.startswith("v"):  # variances
            made[name] = made[name] ** 2 + 0.1
        if not wide:
            made[name] = made[name].to(dtype)
    return made


def our_side(
    device: Device, case: Case, inputs: dict[str, torch.Tensor], precision: str
) -> tuple[Callable[[], Any], list[torch.Tensor], int]:
    """Return the call, its floating-point results, and the bytes that it must move."""
    a = SimpleNamespace(**{k: device.array(t.clone()) for k, t in inputs.items()})
    options = {"precision": "tf32"} if case.multiplies and precision == "tf32" else {}
    before = case.ours_before(a, options)
    vars(a).update(before)
    out = case.ours(a, options, None)
    several = list(out) if isinstance(out, tuple) else [out]
    results = [device.tensor(y) for y in several if y is not None and y.dtype.kind not in "iu"]
    read = [v for k, v in vars(a).items() if k not in case.unread]
    moved = sum(v.nbytes for v in read) + sum(y.nbytes for y in several if y is not None)
    return lambda: case.ours(a, options, out), results, moved + case.more_bytes


def their_side(
    device: Device, case: Case, inputs: dict[str, torch.Tensor]
) -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """Yield PyTorch's ways, its two layouts and each captured in a graph: what makes each."""
    for mode, last in (("eager", False), ("channels_last", True)):
        if last and not any(t.ndim == 4 for t in inputs.values()):
            return

        def eager(last: bool = last) -> Callable[[], Any]:
            return their_call(case, as_theirs(inputs, last=last))

        def graph(eager: Callable[[], Callable[[], Any]] = eager) -> Callable[[], Any]:
            return device.captured(eager())

        yield mode, eager
        yield f"{mode} graph", graph


def as_theirs(
    inputs: dict[str, torch.Tensor], *, last: bool, dtype: torch.dtype | None = None
) -> SimpleNamespace:
    """Return the inputs as PyTorch sees them; biases have the dtype of the products."""
    seen = {}
    for name, t in inputs.items():
        t = t.clone()
        if dtype is not None and t.is_floating_point():
            t = t.to(dtype)
        elif name == "b" and "x" in inputs:
            t = t.to(inputs["x"].dtype)
        if t.ndim == 4:
            t = t.permute(0, 3, 1, 2)
            t = t if last else t.contiguous()
        seen[name] = t
    return SimpleNamespace(**seen)


def their_call(case: Case, t: SimpleNamespace) -> Callable[[], Any]:
    """Return PyTorch's call, with what must be there before."""
    with torch.no_grad():
        vars(t).update(case.theirs_before(t))

    @torch.no_grad()
    def call() -> Any:
        return case.theirs(t)

    return call


def errors(
    device: Device, case: Case, inputs: dict[str, torch.Tensor], results: list[torch.Tensor]
) -> dict[str, float]:
    """Return the distance from float64 of our results and of PyTorch's, over the result's norm."""
    precise = their_call(case, as_theirs(inputs, last=True, dtype=torch.float64))()
    theirs = their_call(case, as_theirs(inputs, last=True))()
    wanted = [in_our_layout(y) for y in precise if y is not None]
    given = [in_our_layout(y) for y in theirs if y is not None]
    return {"stapes": distance(results, wanted), "torch": distance(given, wanted)}


def in_our_layout(y: torch.Tensor) -> torch.Tensor:
    """Return NCHW as NHWC."""
    return y.permute(0, 2, 3, 1) if y.ndim == 4 else y


def distance(given: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """Return the largest ``|a - b| / |b|`` (norms) over pairs of results; NaN where there is one.

    Raises
    ------
    ValueError
        If they are not as many, or of other shapes: then the case itself is wrong.
    """
    worst = 0.0
    for a, b in list(zip(given, wanted, strict=False)):
        if a.shape != b.shape:
            raise ValueError(f"results have shape {tuple(a.shape)}, the reference {tuple(b.shape)}")
        off = float((a.double() - b).norm() / b.norm().clamp_min(1e-300))
        worst = max(worst, off) if off == off else off
        if worst != worst:
            return worst
    return worst


def compiled_cases(context: Context, device: Device) -> str:
    """Time torch.compile (max-autotune, with graphs) on fused forwards; why it ended early."""
    if not context.cuda:
        return "a rehearsal on the CPU"
    chosen = [c for c in all_cases() if c.group in ("pair", "first") and c.name.endswith(" fwd")]
    for batch, precision in COMPILED:
        device.tf32(False)
        for case in chosen:
            if context.left() < COMPILE_SECONDS:
                return "time was up"
            told: dict[str, Any] = {"case": case.name, "batch": batch, "precision": precision}
            try:
                inputs = made_inputs(device, case, batch, DTYPES[precision])
                ours, _, _ = our_side(device, case, inputs, precision)
                t = as_theirs(inputs, last=True)
                theirs = compiled(case.theirs, mode="max-autotune")

                @torch.no_grad()
                def call(theirs: Any = theirs, t: Any = t) -> Any:
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                    return theirs(t)

                told["cold"] = device.interleave(
                    {"stapes": ours, "compiled": call}, seconds=SECONDS, cold=True
                )
            except Exception as e:
                stop_where_broken(e)
                told["error"] = first_line(e)
            context.record("compiled", **told)
    return ""


def stop_where_broken(e: Exception) -> None:
    """Raise where the GPU can no longer be used by this process."""
    if any(mark in str(e) for mark in STICKY):
        raise RuntimeError(f"the GPU is not usable any more: {first_line(e)}") from e


if __name__ == "__main__":
    start(measure)
