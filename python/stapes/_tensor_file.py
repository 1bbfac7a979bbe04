"""Named arrays and JSON in one safetensors file that knows when it has been damaged.

The file's metadata has one entry, "stapes", a JSON object; the safetensors package writes several
entries in random order, and the same model must give the same bytes. The digest in it is SHA-256
over the whole file with the digest itself read as 64 zeros, so no byte is left out, those of the
header included.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes._files import atomic_write

_ENTRY = "stapes"
_DTYPES = ("float64", "float32", "float16", "int64", "int32", "uint8")
_NO_DIGEST = b"0" * 64
# JSON within a JSON string: quotes are escaped.
_DIGEST = re.compile(rb'\\"digest\\": \\"([0-9a-f]{64})\\"')
_VERSION = re.compile(rb'\\"version\\": (\d+)')


class ModelError(ValueError):
    """A file is no model or checkpoint that can be read; the message names it and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    *,
    kind: str,
    version: int,
) -> None:
    """Write arrays and metadata, atomically.

    Parameters
    ----------
    path : path
        The file.
    tensors : mapping of str to array
        float64, float32, float16, int64, int32 or uint8, of any shape.
    metadata : mapping of str to object
        Each value is stored as JSON; floats keep all their bits.
    kind : str
        What the file is, for example ``"stapes.model"``.
    version : int
        Version of what the tensors and the metadata mean.

    Raises
    ------
    OSError
        If the file cannot be written; what was there before is unchanged.
    TypeError
        If an array has a dtype that the file cannot hold.
    """
    from safetensors.numpy import save

    for name, array in tensors.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(
                f"{os.fspath(path)}: {name} has dtype {array.dtype}, which has no place"
            )
    text = {"format": kind, "version": version, "digest": _NO_DIGEST.decode(), **metadata}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = save(arrays, metadata={_ENTRY: json.dumps(text)})
    with atomic_write(path) as file:
        file.write(content.replace(_NO_DIGEST, _sha256([content]), 1))


def read_tensors(
    path: str | os.PathLike[str], *, kind: str, version: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_tensors` wrote: the arrays (new, writable) and the metadata.

    Raises
    ------
    ModelError
        If the file is not of this kind and version, is cut short, or has any byte changed.
    OSError
        If it cannot be opened or read.
    """
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ModelError(path, f"is cut short, or is no {kind} file ({len(content)} bytes)")
    start = content[: 8 + length]
    found = _DIGEST.findall(start)
    if len(found) != 1:
        raise ModelError(path, f"is no {kind} file: its header holds no digest of Stapes")
    rest = memoryview(content)[8 + length :]
    if _sha256([start.replace(found[0], _NO_DIGEST), rest]) != found[0]:
        said = _VERSION.search(start)
        other = said is not None and int(said[1]) != version
        hint = f" (it names version {int(said[1])}; this is {version})" if said and other else ""
        raise ModelError(path, f"is damaged: its content does not match its digest{hint}")
    return _parse(path, content, start[8:], kind, version)


def _parse(
    path: str | os.PathLike[str], content: bytes, header: bytes, kind: str, version: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a file whose digest is right: what can be wrong now is what it is."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        metadata = json.loads(json.loads(header)["__metadata__"][_ENTRY])
        found, of_version = metadata.pop("format"), metadata.pop("version")
        del metadata["digest"]
        tensors = {name: array.copy() for name, array in load(content).items()}
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelError(path, f"has a header that makes no sense ({error!r})") from error
    if found != kind:
        raise ModelError(path, f"is a {found} file, and a {kind} file is needed")
    if of_version != version:
        raise ModelError(
            path, f"has format version {of_version}, and this Stapes reads version {version}"
        )
    return tensors, metadata


def _sha256(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
