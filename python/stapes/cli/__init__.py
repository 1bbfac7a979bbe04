"""The command line: ``stapes``, or ``python -m stapes``."""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns (exit status: see ``stapes --help``)."""
    from stapes.cli.app import app

    app(prog_name="stapes")
