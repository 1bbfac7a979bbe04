"""The command line: ``stapes``, or ``python -m stapes``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns (exit status: see ``stapes --help``)."""
    try:
        from stapes.cli.app import app

        for stream in (sys.stdout, sys.stderr):  # names of files may hold what cannot be encoded
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        app(prog_name="stapes")
    except KeyboardInterrupt:
        sys.exit(130)
