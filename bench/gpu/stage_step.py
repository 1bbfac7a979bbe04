"""Stage step: the whole training step beside PyTorch's ways to run it, and the ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from context import Context, NotRunError, first_line, start
from device import Device, peaks
from seed_network import CLASSES, Theirs, ours, rotating, step_flops
from stage_ops import stop_where_broken

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Channels, batch and precision in order of worth: those that targets name first.
CONFIGS = [(3, 512, "bf16"), (3, 512, "fp32"), (3, 32, "fp32"), (3, 32, "bf16"),
           (3, 2048, "bf16"), (3, 2048, "fp32"), (1, 512, "bf16"), (1, 512, "fp32"),
           (1, 32, "fp32"), (1, 32, "bf16"), (3, 512, "tf32"), (3, 32, "tf32"), (3, 128, "bf16"),
           (3, 128, "fp32"), (1, 2048, "bf16"), (1, 2048, "fp32"), (3, 1024, "bf16"),
           (3, 1024, "fp32"), (3, 64, "bf16"), (3, 64, "fp32"), (3, 256, "bf16"),
           (3, 256, "fp32"), (1, 512, "tf32"), (3, 2048, "tf32")]  # fmt: skip
COMPILED = [(3, 512, "bf16"), (3, 32, "bf16"), (3, 512, "fp32"), (3, 32, "fp32"),
            (1, 512, "bf16"), (1, 32, "bf16")]  # fmt: skip
COMPILE_SHARE = 0.5  # of the time, once the targets' configurations are measured without it
COMPILE_SECONDS = 60.0  # without which none is begun
TARGETS_FIRST = 6  # configurations measured before any torch.compile
SECONDS = 0.5  # of interleaved repeats for a configuration
BATCHES = 4  # different ones, in turn
LOSS_STEPS = 20  # after which the losses of both are compared


def measure(context: Context) -> None:
    """Measure configuration after configuration until time is up."""
    device = Device(context.device)
    context.record("peaks", **peaks(device))
    configs = CONFIGS if context.cuda else [(3, 4, "fp32"), (1, 2, "fp32")]
    size = 64 if context.cuda else 16
    total = context.left()
    failed, reached, not_reached = 0, 0, []
    waiting = list(COMPILED) if context.cuda else [(3, 4, "fp32")]
    for i, config in enumerate(configs):
        # torch.compile takes long, so it comes between: after what the targets name.
        while waiting and i >= TARGETS_FIRST and context.left() > total * (1 - COMPILE_SHARE):
            failed += compile_one(context, device, size, waiting.pop(0))
        if context.left() < 12:
            not_reached.append(config)
            continue
        told = one_config(device, size, *config, seconds=SECONDS if context.cuda else 0.0)
        context.record("step", **told)
        reached, failed = reached + 1, failed + ("error" in told)
        device.release()
    while waiting and (context.left() > COMPILE_SECONDS or not context.cuda):
        failed += compile_one(context, device, size, waiting.pop(0))
    for channels, batch, precision in waiting:
        context.record("compiled", channels=channels, batch=batch, precision=precision,
                       not_run="time was up")  # fmt: skip
    if failed:
        raise RuntimeError(f"{failed} configurations failed, {reached} were measured")
    if not_reached or waiting:
        raise NotRunError(
            f"{reached} measured; time was up before {len(not_reached)} configurations and "
            f"{len(waiting)} of torch.compile"
        )


def one_config(
    device: Device, size: int, channels: int, batch: int, precision: str, *, seconds: float
) -> dict[str, Any]:
    """Return the seconds of a step by mode, and whether both learn alike; or the error."""
    told: dict[str, Any] = {"size": size, "channels": channels, "batch": batch,
                            "precision": precision}  # fmt: skip
    told["flops"] = batch * step_flops(size, channels)
    device.tf32(precision == "tf32")
    try:
        data = [
            (device.normal(batch, size, size, channels), device.integers(CLASSES, batch))
            for _ in range(BATCHES)
        ]
        functions = dict(our_steps(device, size, channels, precision, data, told))
        if not functions:
            return told | {"error": f"Stapes: {told['left_out']}"}
        for mode, make in their_steps(device, size, channels, precision, data):
            try:
                functions[mode] = make()
                functions[mode]()
                device.synchronize()
            except Exception as e:
                stop_where_broken(e)
                functions.pop(mode, None)
                told.setdefault("left_out", {})[mode] = first_line(e)
        told["seconds"] = device.interleave_steps(functions, seconds=seconds)
        on_host = "stapes" not in functions
        told["losses"] = losses(device, size, channels, precision, data[0], on_host)
    except Exception as e:
        stop_where_broken(e)
        told["error"] = first_line(e)
    return told


def our_steps(
    device: Device, size: int, channels: int, precision: str, data: Any, told: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield steps queued one after the other, as `fit` does, and those that give their loss."""
    here = [(device.array(x), y.cpu().numpy()) for x, y in data]
    host = [(x.cpu().numpy(), y.cpu().numpy()) for x, y in data]
    kinds = [("stapes", here), ("stapes from host", host), ("stapes train_on_batch", host)]
    for mode, batches in kinds:
        if mode == "stapes from host" and not device.cuda:  # the same there
            continue
        try:
            net = ours(size, channels, device.name, precision)
            net.train()
            step = partial(net._step, where="bench")
            call = rotating(net.train_on_batch if "train" in mode else step, batches)
            call()
            device.synchronize()
            yield mode, call
        except Exception as e:
            stop_where_broken(e)
            told.setdefault("left_out", {})[mode] = first_line(e)


def their_steps(
    device: Device, size: int, channels: int, precision: str, data: Any
) -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """Yield PyTorch's modes: what makes the step of each."""
    half = HALF.get(precision)
    cast = f" + {precision} autocast" if half is not None else ""

    def plain(last: bool, half: torch.dtype | None = half) -> Callable[[], Any]:
        net = Theirs(size, channels, device, last=last, half=half)
        return rotating(net.step, [(net.batch(x), y) for x, y in data])

    def graph(last: bool) -> Callable[[], Any]:
        net = Theirs(size, channels, device, last=last, half=half, capturable=True)
        x, y = net.batch(data[0][0]).clone(memory_format=net.format), data[0][1].clone()
        replay = device.captured(lambda: net.step(x, y))

        def call(new_x: torch.Tensor, new_y: torch.Tensor) -> Any:
            x.copy_(new_x)
            y.copy_(new_y)
            return replay()

        return rotating(call, [(net.batch(x), y) for x, y in data])

    yield "eager NCHW" + cast, lambda: plain(False)
    yield "channels_last" + cast, lambda: plain(True)
    yield "graph NCHW" + cast, lambda: graph(False)
    yield "graph channels_last" + cast, lambda: graph(True)
    if half is not None:
        yield "eager NCHW, no autocast", lambda: plain(False, None)


def compile_one(context: Context, device: Device, size: int, config: tuple[int, int, str]) -> bool:
    """Time torch.compile (max-autotune, with graphs) beside ours; whether it failed."""
    channels, batch, precision = config
    told: dict[str, Any] = {"channels": channels, "batch": batch, "precision": precision}
    device.tf32(precision == "tf32")
    try:
        data = [
            (device.normal(batch, size, size, channels), device.integers(CLASSES, batch))
            for _ in range(BATCHES)
        ]
        functions = dict(our_steps(device, size, channels, precision, data, told))
        net = Theirs(size, channels, device, last=True, half=HALF.get(precision))
        net.compile(**({"mode": "max-autotune"} if device.cuda else {"backend": "eager"}))
        functions["torch.compile"] = rotating(net.step, [(net.batch(x), y) for x, y in data])
        told["seconds"] = device.interleave_steps(functions, seconds=0.3 if device.cuda else 0.0)
    except Exception as e:
        stop_where_broken(e)
        told["error"] = first_line(e)
    context.record("compiled", **told)
    return "error" in told


def losses(
    device: Device, size: int, channels: int, precision: str, data: Any, on_host: bool
) -> dict[str, float]:
    """Return the loss of both after some steps on one batch, from the same weights."""
    x, y = data
    net = ours(size, channels, device.name, precision)
    theirs = Theirs(size, channels, device, last=True, half=HALF.get(precision))
    theirs.take_weights(net)
    arrays = x.cpu().numpy() if on_host else device.array(x), y.cpu().numpy()
    for _ in range(LOSS_STEPS):
        our_loss = float(net.train_on_batch(*arrays)["loss"])
        their_loss = float(theirs.step(theirs.batch(x), y).detach())
    if not math.isfinite(our_loss):
        raise ValueError(f"the loss is {our_loss} after {LOSS_STEPS} steps")
    return {"stapes": our_loss, "torch": their_loss}


if __name__ == "__main__":
    start(measure)
