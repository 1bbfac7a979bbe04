"""Forms of arguments: what Python reads; the values are checked in C++."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

import numpy as np

from stapes.device import Array, is_cupy

IntPair: TypeAlias = int | tuple[int, int]
"""One number for both axes, or (h, w)."""

PaddingLike: TypeAlias = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] | str
"""An int, (h, w), ((top, bottom), (left, right)), "same" or "valid"."""

_INT64 = np.iinfo(np.int64)
_SCALARS = ("float32", "float64", "int32", "int64")
_PRECISIONS = ("fp32", "fp32_split", "tf32")


def integer(op: str, name: str, value: object) -> int:
    """Return ``value`` as an int; NumPy's integers count as such, bool and float do not.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it does not fit into 64 bits.
    """
    result = _index(op, name, value)
    if not _INT64.min <= result <= _INT64.max:
        raise ValueError(f"{op}: {name} must fit into 64 bits, got {result}")
    return result


def _index(op: str, name: str, value: object) -> int:
    if type(value) is int:
        return value
    refused = isinstance(value, bool | np.bool_ | np.ndarray)
    if refused or not hasattr(value, "__index__"):  # isinstance(value, SupportsIndex) is slow
        raise TypeError(f"{op}: {name} must be an integer, got {type(value).__name__}")
    return operator.index(value)


def unsigned(op: str, name: str, value: object) -> int:
    """Return an integer of 64 bits without sign, as a seed is.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        Unless 0 <= value < 2**64.
    """
    result = _index(op, name, value)
    if not 0 <= result < 2**64:
        raise ValueError(f"{op}: {name} must be at least 0 and below 2**64, got {result}")
    return result


def unsigned_scalar(op: str, name: str, value: object) -> int | Array:
    """Return `unsigned` of an integer; an array of integers as int64, of which C++ takes the bits.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If a number is out of range.
    """
    if not _is_array(value):
        return unsigned(op, name, value)
    if value.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} must be an array of integers, got {value.dtype}")
    return value.astype(np.int64, copy=False)


def number(op: str, name: str, value: object) -> float:
    """Return a real number (Python's or NumPy's, not bool) as a float.

    Raises
    ------
    TypeError
        If it is none.
    ValueError
        If it is too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{op}: {name} must fit into a float, got {value}") from None


def scalar(op: str, name: str, value: object) -> float | Array:
    """Return a real number as a float; an array of one element as it is, for C++ to read.

    Raises
    ------
    TypeError
        If it is neither, or an array of no real dtype.
    ValueError
        If a number is too large for a float.
    """
    if not _is_array(value):
        return number(op, name, value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"{op}: {name} must be an array of a real number, got {value.dtype}")
    return value if value.dtype.name in _SCALARS else value.astype(np.float64)


def arrays(
    op: str, name: str, values: Sequence[Array] | None, prepare: Callable[[str, str, Array], Array]
) -> list[Array]:
    """Return a list of arrays, each of them prepared: ``prepare(op, "name[i]", array)``.

    Raises
    ------
    TypeError
        If it is no sequence, or an array itself.
    """
    if isinstance(values, np.ndarray) or not isinstance(values, Sequence):
        raise TypeError(f"{op}: {name} must be a list of arrays, got {type(values).__name__}")
    return [prepare(op, f"{name}[{i}]", a) for i, a in enumerate(values)]


def _is_array(value: object) -> TypeGuard[Array]:
    return isinstance(value, np.ndarray) or is_cupy(value)


def precision_name(op: str, value: object) -> str:
    """Return the name of a way to multiply float32 numbers.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if value not in _PRECISIONS:
        raise ValueError(f"{op}: precision must be one of {', '.join(_PRECISIONS)}, got {value!r}")
    return str(value)


def flag(op: str, name: str, value: object) -> bool:
    """Return a bool (Python's or NumPy's) as a bool.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{op}: {name} must be True or False, got {type(value).__name__}")
    return bool(value)


def pair(op: str, name: str, value: object) -> tuple[int, int]:
    """Return an int, or two of them, as (h, w).

    Raises
    ------
    TypeError
        If ``value`` is neither an integer nor a tuple or list of integers.
    ValueError
        If it has not two entries.
    """
    if not isinstance(value, tuple | list):
        both = integer(op, name, value)
        return both, both
    if len(value) != 2:
        raise ValueError(f"{op}: {name} must be an int or (h, w), got {value!r}")
    return integer(op, name, value[0]), integer(op, name, value[1])


def padding(op: str, value: object) -> tuple[int, int, int, int] | None:
    """Return padding as (top, bottom, left, right), or None for "same".

    Raises
    ------
    TypeError
        If an entry is no integer.
    ValueError
        If ``value`` has another form than an int, (h, w), ((top, bottom), (left, right)), "same"
        or "valid".
    """
    if isinstance(value, str):
        if value == "same":
            return None
        if value == "valid":
            return 0, 0, 0, 0
        raise ValueError(f'{op}: padding must be "same", "valid" or numbers, got {value!r}')
    if not isinstance(value, tuple | list) or not any(map(_is_pair_like, value)):
        h, w = pair(op, "padding", value)
        return h, h, w, w
    if len(value) != 2 or not all(_is_pair_like(side) and len(side) == 2 for side in value):
        raise ValueError(
            f"{op}: padding must be an int, (h, w) or ((top, bottom), (left, right)), got {value!r}"
        )
    top, bottom, left, right = (integer(op, "padding", v) for side in value for v in side)
    return top, bottom, left, right


def _is_pair_like(value: object) -> bool:
    return isinstance(value, tuple | list)


def shape(op: str, name: str, value: object, ndim: int) -> tuple[int, ...]:
    """Return a shape as a tuple of ``ndim`` ints >= 0.

    Raises
    ------
    TypeError
        If ``value`` is no tuple or list of integers.
    ValueError
        If it has another length, or a negative entry.
    """
    if not isinstance(value, tuple | list):
        raise TypeError(f"{op}: {name} must be a tuple of {ndim} ints, got {type(value).__name__}")
    sizes = tuple(integer(op, name, v) for v in value)
    if len(sizes) != ndim or min(sizes) < 0:
        raise ValueError(f"{op}: {name} must be {ndim} sizes of at least 0, got {sizes}")
    return sizes
