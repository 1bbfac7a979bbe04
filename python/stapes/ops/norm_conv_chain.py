"""Several convolutions in a row, with batch normalisation and ReLU before each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stapes import _core
from stapes.device import Array, as_input, output, outputs, wide_dtype
from stapes.ops._args import IntPair, PaddingLike, flag, number, precision_name
from stapes.ops.conv import _geometry
from stapes.ops.norm import _channels


class NormConv(NamedTuple):
    """A block of a chain: the arguments of `batch_norm2d_relu_conv2d_fwd` but ``x``."""

    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array
    w: Array
    b: Array | None = None
    training: bool = True
    momentum: float = 0.1
    eps: float = 1e-5
    stride: IntPair = 1
    padding: PaddingLike = 0
    dilation: IntPair = 1
    groups: int = 1


def batch_norm2d_relu_conv2d_chain_fwd(
    x: Array,
    blocks: Sequence[NormConv],
    *,
    precision: str = "fp32",
    out: Sequence[tuple[Array | None, Array | None]] | None = None,
) -> list[tuple[Array, Array]]:
    """Do `batch_norm2d_relu_conv2d_fwd` several times, each with the ``y`` of the one before.

    On the CPU the statistics of a ``y`` are taken while it is in the cache, behind 1x1, depthwise
    and other convolutions that are computed directly.

    Parameters
    ----------
    x : array
        As in `batch_norm2d_relu_conv2d_fwd`.
    blocks : sequence of NormConv
        At least one; the running values are updated where a block is in training.
    precision : str
        As in `conv2d_fwd`.
    out : sequence of tuple of array, optional
        ``(y, norm)`` for each block, overwritten and returned; None entries are allocated.

    Returns
    -------
    list of (array, array)
        ``y`` and ``norm`` of each block, as `batch_norm2d_relu_conv2d_fwd` returns them.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_relu_conv2d_fwd`, naming the block; without blocks; or if arrays that are
        written overlap others, also those of other blocks.
    """
    op = "batch_norm2d_relu_conv2d_chain_fwd"
    x = like = as_input(op, "x", x)
    results, args = [], []
    for i, given in enumerate(outputs(op, out, len(blocks))):
        at, block = f"{op}, block {i}", blocks[i]
        training = flag(at, "training", block.training)
        channels = _channels(at, *block[:4], training)
        w, b = _weights(at, block)
        window = _geometry(at, *block[9:])
        y, norm = outputs(at, given, 2)
        size = _core.conv2d_fwd_shape(at, like.shape, w.shape, *window)
        y = output(at, "out[0] (y)", y, x, size)
        norm = output(at, "out[1] (norm)", norm, x, (4, like.shape[-1]), wide_dtype(x))
        settings = training, number(at, "momentum", block.momentum), number(at, "eps", block.eps)
        args.append((*channels, w, b, *settings, y, norm, window))
        results.append((y, norm))
        like = y
    _core.batch_norm2d_relu_conv2d_chain_fwd(x, args, precision_name(op, precision))
    return results


def batch_norm2d_relu_conv2d_chain_bwd(
    dy: Array,
    x: Array,
    blocks: Sequence[NormConv],
    kept: Sequence[tuple[Array, Array]],
    *,
    precision: str = "fp32",
    out: tuple[Array | None, Sequence[tuple[Array | None, ...]]] | None = None,
) -> tuple[Array, list[tuple[Array, Array, Array, Array | None]]]:
    """Compute the gradients of `batch_norm2d_relu_conv2d_chain_fwd`.

    On the CPU the gradient by a ``y`` is made where a 1x1 or depthwise convolution without bias
    reads it, and not written; others have it in scratch memory.

    Parameters
    ----------
    dy : array
        The gradient by the last ``y``.
    x, blocks, precision
        As in the forward.
    kept : sequence of (array, array)
        What the forward returned.
    out : tuple, optional
        ``(dx, [(dgamma, dbeta, dw, db), ...])``, overwritten and returned; None entries are
        allocated, but ``db`` must be None where a block has no ``b``.

    Returns
    -------
    dx : array
        Shape and dtype of ``x``.
    gradients : list of (array, array, array, array or None)
        dgamma, dbeta, dw and db of each block, as `batch_norm2d_relu_conv2d_bwd` returns them.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm2d_relu_conv2d_bwd`, naming the block, and as the forward.
    """
    op = "batch_norm2d_relu_conv2d_chain_bwd"
    dy, x = as_input(op, "dy", dy), as_input(op, "x", x)
    if len(kept) != len(blocks):
        raise ValueError(f"{op}: kept must have {len(blocks)} entries, got {len(kept)}")
    dx, all_given = outputs(op, out, 2)
    dx = output(op, "out[0] (dx)", dx, x, x.shape)
    inputs, gradients, args = [x], [], []
    for i, given in enumerate(outputs(op, all_given, len(blocks))):
        at, block = f"{op}, block {i}", blocks[i]
        gamma, norm = as_input(at, "gamma", block.gamma), as_input(at, "norm", kept[i][1])
        w, b = _weights(at, block)
        dgamma, dbeta, dw, db = outputs(at, given, 4)
        if b is None and db is not None:
            raise ValueError(f"{at}: out[3] (db) must be None without b")
        dtype = wide_dtype(x)
        dgamma = output(at, "out[0] (dgamma)", dgamma, x, gamma.shape, dtype)
        dbeta = output(at, "out[1] (dbeta)", dbeta, x, gamma.shape, dtype)
        dw = output(at, "out[2] (dw)", dw, x, w.shape, dtype)
        db = None if b is None else output(at, "out[3] (db)", db, x, w.shape[:1], dtype)
        training, window = flag(at, "training", block.training), _geometry(at, *block[9:])
        args.append((gamma, norm, w, training, dgamma, dbeta, dw, db, window))
        gradients.append((dgamma, dbeta, dw, db))
        inputs.append(as_input(at, "y", kept[i][0]))
    _core.batch_norm2d_relu_conv2d_chain_bwd(
        dy, inputs[:-1], args, dx, precision_name(op, precision)
    )
    return dx, gradients


def _weights(op: str, block: NormConv) -> tuple[Array, Array | None]:
    return as_input(op, "w", block.w), None if block.b is None else as_input(op, "b", block.b)
