"""NumPy or CuPy: which library an array belongs to, and how inputs and outputs are prepared.

What goes in decides where the work is done; nothing here moves data between devices.
"""

from __future__ import annotations

from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Array: TypeAlias = Any
"""A NumPy or CuPy array. CuPy is optional and has no usable type stubs."""

_DLPACK_CPU, _DLPACK_CUDA = 1, 2

_DTYPES = frozenset(
    np.dtype(t) for t in ("float32", "float64", "float16", "int32", "int64", "uint8")
)


def _check_dtype(op: str, name: str, x: Array) -> None:
    """Refuse dtypes that no operator knows; which of the others fit is the operator's to check."""
    if x.dtype not in _DTYPES and x.dtype.name != "bfloat16":
        raise TypeError(f"{op}: {name} has dtype {x.dtype}, which no operator takes")


def cuda_reason() -> str | None:
    """Return why CUDA cannot be used, or None where it can."""
    from importlib.util import find_spec

    from stapes import _core

    reason = _core.cuda_reason()
    if reason:
        return reason
    return None if find_spec("cupy") else "CuPy is not installed: pip install 'stapes[cupy]'"


def is_cupy(x: object) -> bool:
    """Tell whether ``x`` is a CuPy array, without importing CuPy."""
    return type(x).__module__.partition(".")[0] == "cupy"


def array_module(x: Array) -> ModuleType:
    """Return ``numpy`` or ``cupy``, whichever made ``x``."""
    if is_cupy(x):
        import cupy

        return cupy  # type: ignore[no-any-return]
    return np


def as_input(op: str, name: str, x: Array, *, converted: bool = False) -> Array:
    """Return ``x`` as a C-contiguous, aligned array; it is copied only where it is not one already.

    Other libraries' arrays (torch tensors, ...) come in through DLPack, without a copy. Any dtype
    passes where the caller says that it is ``converted`` before an operator sees it.

    Raises
    ------
    TypeError
        If ``x`` is no array, or of a dtype that no operator takes.
    """
    if not converted and (isinstance(x, np.ndarray) or is_cupy(x)):
        _check_dtype(op, name, x)
    if isinstance(x, np.ndarray):
        flags = x.flags
        return x if flags.c_contiguous and flags.aligned else np.array(x, order="C")
    if is_cupy(x):
        return x if x.flags.c_contiguous else array_module(x).ascontiguousarray(x)
    if isinstance(x, np.generic):
        return as_input(op, name, np.asarray(x), converted=converted)
    if hasattr(x, "__dlpack__"):
        return as_input(op, name, _from_dlpack(op, name, x), converted=converted)
    raise TypeError(f"{op}: {name} must be a NumPy or CuPy array, got {type(x).__name__}")


def _from_dlpack(op: str, name: str, x: Any) -> Array:
    try:
        kind = x.__dlpack_device__()[0]
        if kind == _DLPACK_CPU:
            return np.from_dlpack(x)
        if kind == _DLPACK_CUDA:
            import cupy

            return cupy.from_dlpack(x)
    except (BufferError, RuntimeError, ValueError) as e:
        raise TypeError(f"{op}: {name} ({type(x).__name__}) cannot be read by DLPack: {e}") from e
    raise TypeError(f"{op}: {name} must be on the CPU or a CUDA device, got DLPack device {kind}")


_CACHE_LINE = 64


def empty(module: ModuleType, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return a new array that begins where a cache line does.

    NumPy's own begin 16 bytes behind it if they are large: every second vector is in two lines
    then, and what is written so costs a kernel up to half of its speed.

    Parameters
    ----------
    module : module
        numpy or cupy.
    """
    if module is not np:
        return module.empty(shape, dtype)
    size = prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _CACHE_LINE - 1, np.uint8)
    return np.ndarray(shape, dtype, memory, -memory.ctypes.data % _CACHE_LINE)


def output(
    op: str, name: str, out: Array | None, like: Array, shape: Any, dtype: Any = None
) -> Array:
    """Return ``out``, or a new array of this shape where it is None.

    The operator itself checks dtype, device and overlap; here that it has the shape of the result,
    and can be written to as it is, since a copy would lose the result.

    Raises
    ------
    TypeError
        If ``out`` is no NumPy or CuPy array.
    ValueError
        If ``out`` has another shape, or is not C-contiguous.
    """
    if out is None:
        return empty(array_module(like), tuple(shape), like.dtype if dtype is None else dtype)
    if not isinstance(out, np.ndarray) and not is_cupy(out):
        raise TypeError(f"{op}: {name} must be a NumPy or CuPy array, got {type(out).__name__}")
    _check_dtype(op, name, out)
    if not out.flags.c_contiguous or (isinstance(out, np.ndarray) and not out.flags.aligned):
        raise ValueError(
            f"{op}: {name} must be C-contiguous and aligned, got strides {out.strides}"
        )
    if out.shape != tuple(shape):
        raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {out.shape}")
    return out


def in_place(op: str, name: str, x: Array) -> Array:
    """Return ``x``, which the operator updates: never a copy, which would lose the result.

    Raises
    ------
    TypeError
        If ``x`` is no NumPy or CuPy array.
    ValueError
        If ``x`` is not C-contiguous.
    """
    if x is None:
        raise TypeError(f"{op}: {name} must be a NumPy or CuPy array, got None")
    return output(op, name, x, x, getattr(x, "shape", ()))


def wide_dtype(x: Array) -> np.dtype[Any]:
    """Return the dtype of statistics and losses of ``x``: float64 for float64, else float32."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def outputs(op: str, out: Any, count: int) -> tuple[Array | None, ...]:
    """Return the ``count`` entries of an ``out=`` tuple, or that many None.

    Raises
    ------
    TypeError
        If ``out`` is no tuple or list.
    ValueError
        If it has not ``count`` entries.
    """
    if out is None:
        return (None,) * count
    if not isinstance(out, tuple | list):
        raise TypeError(f"{op}: out must be a tuple of {count} arrays, got {type(out).__name__}")
    if len(out) != count:
        raise ValueError(f"{op}: out must have {count} entries, got {len(out)}")
    return tuple(out)


def to_device(x: Array, device: str) -> Array:
    """Return ``x`` on ``"cpu"``, ``"cuda"`` (the current one) or ``"cuda:N"``; a copy if it moves.

    Raises
    ------
    ValueError
        If there is no such device name.
    RuntimeError
        If CuPy or the device is missing.
    """
    kind, _, index = device.partition(":")
    if device == "cpu":
        return x.get() if is_cupy(x) else x
    if kind != "cuda" or (device != "cuda" and not index.isdecimal()):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:N", got {device!r}')
    try:
        import cupy
    except ImportError as e:
        raise RuntimeError(f"device {device!r} needs CuPy: pip install 'stapes[cupy]'") from e
    try:
        with cupy.cuda.Device(int(index) if index else cupy.cuda.Device().id):
            return cupy.asarray(x)
    except cupy.cuda.runtime.CUDARuntimeError as e:
        raise RuntimeError(f"device {device!r} cannot be used: {e}") from e


def device_of(x: Array) -> str:
    """Return the name under which `to_device` puts an array where ``x`` is."""
    return f"cuda:{x.device.id}" if is_cupy(x) else "cpu"
