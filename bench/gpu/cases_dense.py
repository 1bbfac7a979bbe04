"""The dense layer, softmax and the losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as nnf
from case import Case

from stapes import ops

aten: Any = torch.ops.aten


def dense_cases() -> Iterator[Case]:
    """Yield the network's dense layer, softmax and the losses."""
    C, K = 16384, 64

    def wgrad(a: Any, p: dict[str, Any], out: Any) -> Any:
        dw, db = (None, None) if out is None else out
        return ops.linear_wgrad(a.dy, a.x, **p, out=dw), ops.linear_bgrad(a.dy, out=db)

    kw: dict[str, Any] = {"multiplies": True, "flops": lambda n: 2 * n * C * K}
    yield Case(
        "linear 16384 -> 64 fwd", "other", lambda n: {"x": (n, C), "w": (K, C), "b": (K,)},
        lambda a, p, out: ops.linear_fwd(a.x, a.w, a.b, **p, out=out),
        lambda t: (nnf.linear(t.x, t.w, t.b),), **kw,
    )  # fmt: skip
    yield Case(
        "linear 16384 -> 64 dgrad", "other", lambda n: {"dy": (n, K), "w": (K, C)},
        lambda a, p, out: ops.linear_dgrad(a.dy, a.w, **p, out=out),
        lambda t: (t.dy @ t.w,), **kw,
    )  # fmt: skip
    yield Case(
        "linear 16384 -> 64 wgrad + bias", "other", lambda n: {"dy": (n, K), "x": (n, C)},
        wgrad, lambda t: (t.dy.T @ t.x, t.dy.sum(0)), **kw,
    )  # fmt: skip
    classes = 1000

    def entropy(a: Any, p: dict[str, Any], out: Any) -> Any:
        loss, saved, dlogits = (None, None, None) if out is None else out
        loss, saved = ops.cross_entropy_fwd(a.x, a.ids, out=(loss, saved))
        dlogits = ops.cross_entropy_bwd(saved, out=dlogits)
        return loss, saved, dlogits

    def their_entropy(t: Any) -> tuple[Any, ...]:
        logs = aten._log_softmax(t.x, 1, False)
        loss, weight = aten.nll_loss_forward(logs, t.ids, None, 1, -100)
        one = torch.ones_like(loss)
        d = aten.nll_loss_backward(one, logs, t.ids, None, 1, -100, weight)
        d = aten._log_softmax_backward_data(d, logs, 1, t.x.dtype)
        return loss, d, d

    def rows(n: int) -> dict[str, tuple[int, ...]]:
        return {"x": (n, classes)}

    def both(n: int) -> dict[str, tuple[int, ...]]:
        return {"x": (n, classes), "dy": (n, classes)}

    yield Case("cross-entropy fwd + bwd, 1000 classes", "other",
               lambda n: {"x": (n, classes), "ids": (n,)}, entropy, their_entropy)  # fmt: skip
    yield Case("softmax fwd, 1000 classes", "other", rows,
               lambda a, p, out: ops.softmax_fwd(a.x, out=out),
               lambda t: (torch.softmax(t.x, 1),))  # fmt: skip
    yield Case("softmax bwd, 1000 classes", "other", both,
               lambda a, p, out: ops.softmax_bwd(a.dy, a.x, out=out),
               lambda t: (aten._softmax_backward_data(t.dy, t.x, 1, t.x.dtype),))  # fmt: skip
    yield Case("mse fwd, 1000 outputs", "other", both,
               lambda a, p, out: ops.mse_fwd(a.x, a.dy, out=out),
               lambda t: (nnf.mse_loss(t.x, t.dy),))  # fmt: skip
