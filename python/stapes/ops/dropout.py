"""Dropout with a counter-based random generator: the mask is a function of (seed, offset)."""

from __future__ import annotations

from stapes import _core
from stapes.device import Array, as_input, output
from stapes.ops import _args


def dropout_fwd(
    x: Array, p: float, *, seed: int, offset: int | Array, out: Array | None = None
) -> Array:
    """Set elements to zero with probability ``p``, and scale the others by ``1 / (1 - p)``.

    Element i in C order takes word ``i % 4`` of Philox4x32-10 (Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", 2011) with the key ``seed`` and the counter ``offset + i // 4``;
    it is kept where ``(word >> 8) * 2**-24 >= p``. A call uses ``ceil(x.size / 4)`` counters: the
    next one takes an ``offset`` larger by as many.

    Parameters
    ----------
    x : array
        Any shape, float32 or float64 (CPU); float32, float16 or bfloat16 (CUDA).
    p : float
        Probability, 0 <= p < 1.
    seed : int
        0 <= seed < 2**64.
    offset : int or array
        0 <= offset < 2**64; or an array of one integer, on the device of ``x``.
    out : array, optional
        Overwritten and returned; may be ``x`` itself.

    Returns
    -------
    array
        ``y``, shape and dtype of ``x``.

    Raises
    ------
    TypeError
        If an argument is no array or no number, or of another dtype or device.
    ValueError
        If ``p``, ``seed`` or ``offset`` is out of range, or ``out`` has another shape, is
        read-only, or overlaps ``x`` without being it.
    """
    op = "dropout_fwd"
    x = as_input(op, "x", x)
    counters = _args.unsigned(op, "seed", seed), _args.unsigned_scalar(op, "offset", offset)
    y = output(op, "out", out, x, x.shape)
    _core.dropout_fwd(x, y, _args.number(op, "p", p), *counters)
    return y


def dropout_bwd(
    dy: Array, p: float, *, seed: int, offset: int | Array, out: Array | None = None
) -> Array:
    """Compute ``dx``: the mask of the forward call with the same arguments, applied to ``dy``.

    Parameters
    ----------
    dy : array
        Gradient of the output.
    p, seed, offset
        As given to `dropout_fwd`.
    out : array, optional
        Overwritten and returned; may be ``dy`` itself.

    Returns
    -------
    array
        ``dx``, shape and dtype of ``dy``.

    Raises
    ------
    TypeError, ValueError
        As `dropout_fwd`.
    """
    op = "dropout_bwd"
    dy = as_input(op, "dy", dy)
    counters = _args.unsigned(op, "seed", seed), _args.unsigned_scalar(op, "offset", offset)
    dx = output(op, "out", out, dy, dy.shape)
    _core.dropout_bwd(dy, dx, _args.number(op, "p", p), *counters)
    return dx
