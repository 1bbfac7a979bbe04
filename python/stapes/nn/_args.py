"""Forms of constructor arguments, checked where a layer is made."""

from __future__ import annotations

from typing import Any

from stapes.ops._args import flag, integer, number, padding, pair

__all__ = [
    "flag", "fraction", "freeze", "number", "optional_size", "padding_like", "size", "size_pair",
    "thaw",
]  # fmt: skip


def freeze(value: Any) -> Any:
    """Turn lists (as JSON gives them back) into tuples, at every depth."""
    return tuple(freeze(v) for v in value) if isinstance(value, list | tuple) else value


def thaw(value: Any) -> Any:
    """Turn tuples into lists, as JSON keeps them, at every depth."""
    return [thaw(v) for v in value] if isinstance(value, list | tuple) else value


def size(owner: str, name: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1."""
    n = integer(owner, name, value)
    if n < 1:
        raise ValueError(f"{owner}: {name} must be at least 1, got {n}")
    return n


def optional_size(owner: str, name: str, value: Any) -> int | None:
    """Return ``value`` as an int of at least 1, or None."""
    return None if value is None else size(owner, name, value)


def size_pair(owner: str, name: str, value: Any, *, least: int = 1) -> int | tuple[int, int]:
    """Return ``value`` in its own form, an int or (h, w), each at least ``least``."""
    h, w = pair(owner, name, value)
    if min(h, w) < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {value!r}")
    return (h, w) if isinstance(value, tuple | list) else h


def padding_like(owner: str, value: Any) -> Any:
    """Return padding in its own form: int, (h, w), ((top, bottom), (left, right)) or a word."""
    amounts = padding(owner, value)
    if amounts is not None and min(amounts) < 0:
        raise ValueError(f"{owner}: padding must be at least 0, got {value!r}")
    return freeze(value)


def fraction(owner: str, name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1)."""
    p = number(owner, name, value)
    if not 0 <= p < 1:
        raise ValueError(f"{owner}: {name} must be at least 0 and below 1, got {p}")
    return p
