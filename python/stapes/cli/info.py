"""``stapes info``."""

from __future__ import annotations

from typing import Any

import typer

from stapes.cli._errors import reported
from stapes.cli._options import Json


def info(json: Json = False) -> None:
    """Show version, instruction set, threads, and CUDA or why it cannot be used."""
    with reported():
        facts = _facts()
        if json:
            from stapes.cli._output import print_json

            print_json(facts)
            return
        cuda = "yes" if facts["cuda"] else f"no: {facts['cuda_reason']}"
        typer.echo(f"stapes   {facts['version']}")
        typer.echo(f"isa      {facts['isa']}")
        typer.echo(f"threads  {facts['threads']}")
        typer.echo(f"cuda     {cuda}")


def _facts() -> dict[str, Any]:
    import stapes
    from stapes import _core
    from stapes.device import cuda_reason

    reason = cuda_reason()
    return {
        "version": stapes.__version__,
        "isa": _core.isa(),
        "threads": stapes.num_threads(),
        "cuda": reason is None,
        "cuda_reason": reason,
    }
