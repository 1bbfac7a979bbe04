"""From exceptions to one line on stderr and an exit status."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

_EXPECTED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, MemoryError)


class Failure(Exception):  # noqa: N818 - it is one of the command, not of the program
    """The command cannot be done; the message says why, in words for people."""


@contextmanager
def reported() -> Iterator[None]:
    """Within the block, errors end the command: one line on stderr, exit status 1; Ctrl-C: 130.

    ``STAPES_DEBUG=1`` in the environment lets the traceback through. Warnings are one line each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt as error:
            say(str(error) or "Interrupted.")
            raise typer.Exit(130) from None
        except (typer.Exit, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("STAPES_DEBUG", "0") not in ("", "0"):
                raise
            say(f"Error: {describe(error)}")
            raise typer.Exit(1) from None


def describe(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, (Failure, *_EXPECTED)) and str(error):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (STAPES_DEBUG=1 shows where)"
    head, *details = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    return " ".join([head, "; ".join(details)]) if details else head


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _show_warning(message: Warning | str, *args: Any, **keywords: Any) -> None:
    say("Warning: " + " ".join(str(message).split()))
