"""Named arrays and JSON in one safetensors file that knows when it has been damaged.

The format is https://huggingface.co/docs/safetensors: eight bytes with the length of the header,
the header (JSON, padded with spaces to a multiple of 8), the arrays. It is written here and not by
the safetensors package because that orders the metadata at random, and the same model must give the
same bytes. The digest is SHA-256 over the whole file with the digest itself read as 64 zeros, so no
byte is left out, those of the header included.
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

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_NO_DIGEST = b"0" * 64
_DIGEST = re.compile(rb'"digest":"([0-9a-f]{64})"')
_VERSION = re.compile(rb'"version":"(\d+)"')


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
    # Widest first, as the format's own writer does: every array is then aligned to its element.
    arrays = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    text = {"format": kind, "version": str(version), "digest": _NO_DIGEST.decode()}
    text |= {key: json.dumps(value) for key, value in metadata.items()}
    header: dict[str, Any] = {"__metadata__": text}
    begin = 0
    for name, array in arrays:
        if array.dtype not in _CODES:
            raise TypeError(
                f"{os.fspath(path)}: {name} has dtype {array.dtype}, which has no place"
            )
        end = begin + array.nbytes
        shape = list(array.shape)
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": shape,
            "data_offsets": [begin, end],
        }
        begin = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    start = len(encoded).to_bytes(8, "little") + encoded
    blocks = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for _, array in arrays]
    digest = _sha256([start, *blocks])
    with atomic_write(path) as file:
        file.write(start.replace(_NO_DIGEST, digest, 1))
        for block in blocks:
            file.write(block)


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
    try:
        header = json.loads(start[8:])
        text = header.pop("__metadata__")
        if text["format"] != kind:
            raise ModelError(path, f"is a {text['format']} file, and a {kind} file is needed")
        if text["version"] != str(version):
            raise ModelError(
                path,
                f"has format version {text['version']}, and this Stapes reads version {version}",
            )
        reserved = ("format", "version", "digest")
        metadata = {key: json.loads(value) for key, value in text.items() if key not in reserved}
        return {name: _array(rest, entry) for name, entry in header.items()}, metadata
    except ModelError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(path, f"has a header that makes no sense ({error!r})") from error


def _array(data: memoryview, entry: Mapping[str, Any]) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data):
        raise ValueError(f"offsets {begin}, {end} in {len(data)} bytes")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    return np.frombuffer(data[begin:end], dtype).reshape(entry["shape"]).copy()


def _sha256(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
