"""Weights of other libraries' layouts.

Stapes keeps activations NHWC and weights KRSC. With these functions a model of torch or Keras is
loaded name by name::

    state = {"0.weight": conv_weight(sd["0.weight"]), "0.bias": sd["0.bias"],
             "7.weight": flatten_columns(sd["7.weight"], (C, H, W)), ...}
    net.load_state_dict(state)

BatchNorm, biases, and dense layers that no Flatten of maps precedes, are the same everywhere (but
Keras's dense kernels are transposed: `dense_weight_from_keras`).
"""

from __future__ import annotations

from stapes.device import Array, array_module, as_input


def conv_weight(w: Array) -> Array:
    """Convert torch's convolution weights to Stapes'.

    Parameters
    ----------
    w : array
        OIHW (K, C, R, S) of Conv2d; (C_in, C_out, R, S) of ConvTranspose2d; (K, C, S) of Conv1d.

    Returns
    -------
    array
        KRSC (K, R, S, C); (C_in, R, S, C_out); (K, 1, S, C). Contiguous.
    """
    w = as_input("conv_weight", "w", w)
    if w.ndim == 3:
        w = w[:, :, None]
    return _transposed("conv_weight", w, (0, 2, 3, 1))


def conv_weight_to_torch(w: Array) -> Array:
    """Convert Stapes' (K, R, S, C) or (C_in, R, S, C_out) weights to torch's OIHW.

    Conv1d's come out as (K, C, 1, S): take ``[:, :, 0]``.
    """
    return _transposed("conv_weight_to_torch", w, (0, 3, 1, 2))


def conv_weight_from_keras(w: Array) -> Array:
    """Convert Keras's convolution kernels HWIO (R, S, C, K) to KRSC.

    Keras's Conv2DTranspose keeps (R, S, C_out, C_in), which the same permutation makes
    (C_in, R, S, C_out).
    """
    return _transposed("conv_weight_from_keras", w, (3, 0, 1, 2))


def depthwise_weight_from_keras(w: Array) -> Array:
    """Convert Keras's depthwise kernels (R, S, C, multiplier) to (C * multiplier, R, S, 1)."""
    w = _transposed("depthwise_weight_from_keras", w, (2, 3, 0, 1))
    C, multiplier, R, S = w.shape
    return w.reshape(C * multiplier, R, S, 1)


def dense_weight_from_keras(w: Array) -> Array:
    """Convert Keras's dense kernels (in, out) to (out, in)."""
    w = as_input("dense_weight_from_keras", "w", w)
    return array_module(w).ascontiguousarray(w.T)


def flatten_columns(w: Array, chw: tuple[int, int, int]) -> Array:
    """Permute the columns of the dense layer after Flatten from C, H, W to H, W, C.

    Parameters
    ----------
    w : array of shape (out, C * H * W)
        torch's weights.
    chw : tuple of int
        (C, H, W) of the map before Flatten.

    Returns
    -------
    array of shape (out, H * W * C)
    """
    return _columns("flatten_columns", w, chw, (0, 2, 3, 1))


def flatten_columns_to_torch(w: Array, hwc: tuple[int, int, int]) -> Array:
    """Undo `flatten_columns`: permute columns from H, W, C to C, H, W."""
    return _columns("flatten_columns_to_torch", w, hwc, (0, 3, 1, 2))


def nhwc(x: Array) -> Array:
    """Convert activations NCHW to NHWC."""
    return _transposed("nhwc", x, (0, 2, 3, 1))


def nchw(x: Array) -> Array:
    """Convert activations NHWC to NCHW."""
    return _transposed("nchw", x, (0, 3, 1, 2))


def _transposed(name: str, w: Array, axes: tuple[int, ...]) -> Array:
    w = as_input(name, "array", w)
    if w.ndim != len(axes):
        raise ValueError(f"{name}: the array must have {len(axes)} axes, got shape {w.shape}")
    return array_module(w).ascontiguousarray(w.transpose(axes))


def _columns(name: str, w: Array, sizes: tuple[int, int, int], axes: tuple[int, ...]) -> Array:
    w = as_input(name, "w", w)
    a, b, c = sizes
    if w.ndim != 2 or w.shape[1] != a * b * c:
        raise ValueError(f"{name}: w must have shape (out, {a * b * c}), got {w.shape}")
    return _transposed(name, w.reshape(-1, a, b, c), axes).reshape(w.shape)
