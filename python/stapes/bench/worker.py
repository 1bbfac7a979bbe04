"""A process that trains one network in one program, a few steps whenever it is told to.

    python -m stapes.bench.worker '{"program": "torch", "network": "seed_64x64x3", ...}'

Each program has its own process, so that each has the memory allocator it is best with, and its
peak memory can be told. It reads commands from stdin and answers each with a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import stapes
from stapes import optim
from stapes.bench.networks import CLASSES, NETWORKS, Network, training_flops
from stapes.bench.timing import OURS, interruptions

PROGRAMS = {
    OURS: "Stapes",
    "torch": "PyTorch, channels_last",
    "torch-nchw": "PyTorch, NCHW",
    "torch-compile": "PyTorch, channels_last, torch.compile",
}
"""PyTorch has fused Adam, and the allocator's settings that suit it (`stapes.bench.allocator`)."""


class Contestant(Protocol):
    """A network in some program."""

    def train(self) -> Any:
        """Do one step; return the loss in the program's own form."""

    def infer(self) -> Any:
        """Compute the logits of the batch."""


EXACT = "stapes-fp64"
"""Stapes in float64: what the losses of all programs are held against."""


class Ours:
    """In Stapes."""

    def __init__(
        self, network: Network, x: NDArray[Any], y: NDArray[Any], precision: str = "fp32"
    ) -> None:
        self.net, self.x, self.y = network.build(), x, y
        self.net.compile(optim.Adam(lr=1e-3), metrics=[], precision=precision)

    def train(self) -> Any:
        """Do one step."""
        return self.net.train_on_batch(self.x, self.y)["loss"]

    def infer(self) -> Any:
        """Compute the logits."""
        return self.net.predict_on_batch(self.x)


class Theirs:
    """In PyTorch."""

    def __init__(
        self, network: Network, x: NDArray[Any], y: NDArray[Any], program: str, threads: int
    ) -> None:
        from stapes.bench.torch_network import convert

        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        last = program != "torch-nchw"
        layout = self.torch.channels_last if last else self.torch.contiguous_format
        self.net = convert(network.build()).to(memory_format=layout)
        self.x = self.torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        self.y = self.torch.from_numpy(y)
        self.optimizer = self.torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)
        self.forward = self._loss
        self.apply = self.net
        if program == "torch-compile":
            self.forward = self.torch.compile(self._loss)
            self.apply = self.torch.compile(self.net)

    def _loss(self) -> Any:
        return self.torch.nn.functional.cross_entropy(self.net(self.x), self.y)

    def train(self) -> Any:
        """Do one step."""
        self.optimizer.zero_grad()
        loss = self.forward()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def infer(self) -> Any:
        """Compute the logits."""
        self.net.eval()
        with self.torch.inference_mode():
            return self.apply(self.x)


def contestant(job: dict[str, Any]) -> Contestant:
    """Make the network and its batch: standard normal inputs, uniform labels."""
    network = NETWORKS[job["network"]]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((job["batch"], *network.input_shape), dtype=np.float32)
    y = rng.integers(0, CLASSES, job["batch"])
    if job["program"] in (OURS, EXACT):
        stapes.set_num_threads(job["threads"])
        return Ours(network, x, y, "fp64" if job["program"] == EXACT else "fp32")
    return Theirs(network, x, y, job["program"], job["threads"])


def density(net: stapes.nn.Sequential, x: NDArray[Any]) -> list[float]:
    """Return the share of nonzeros in the gradient before each max pooling behind a ReLU."""
    shares = []
    layers = net.layers
    for before, layer in zip([None, *layers], layers, strict=False):
        y = layer.forward(x)
        if isinstance(layer, stapes.nn.MaxPool2d) and isinstance(before, stapes.nn.ReLU):
            shares.append(float(np.count_nonzero(y) / x.size))
        x = y
    return shares


def answer(command: dict[str, Any], network: Network, runner: Contestant) -> Any:
    """Do what a command asks for.

    ``{"do": "losses", "steps": n}`` trains and returns each loss; ``train`` and ``infer`` return
    seconds of each of n steps after one that is not counted, and how often the process was
    interrupted meanwhile; ``memory`` the process's peak in MiB, ``facts`` what is known of the
    network.
    """
    what, count = command["do"], command.get("steps", 0)
    if what == "losses":
        return [float(runner.train()) for _ in range(count)]
    if what == "memory":
        return peak_memory()
    if what == "facts":
        net = network.build()
        x = np.random.default_rng(0).standard_normal((8, *network.input_shape), dtype=np.float32)
        flops = training_flops(net, network.input_shape), net.flops(network.input_shape)
        random = any(isinstance(layer, stapes.nn.Dropout) for layer in net.layers)
        return {"flops": flops, "density": density(net, x), "random": random}
    step = {"train": runner.train, "infer": runner.infer}[what]
    step()
    seconds = []
    before = interruptions()
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "interruptions": interruptions() - before}


def peak_memory() -> float:
    """Return the most memory that this process has had, in MiB.

    Not ru_maxrss where /proc tells more: that one begins with the peak of the parent.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    kib = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 1024


def main() -> None:
    """Answer commands until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    job = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    runner = contestant(job)
    for line in sys.stdin:
        reply = answer(json.loads(line), NETWORKS[job["network"]], runner)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
