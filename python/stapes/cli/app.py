"""The commands, put together. What a command needs is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from stapes.cli.bench import bench
from stapes.cli.demo import demo
from stapes.cli.evaluate import evaluate
from stapes.cli.info import info
from stapes.cli.predict import predict
from stapes.cli.train import train

_ABOUT = """Train and run small audio classifiers: folders of sound in, a model in one file out.

\b
    stapes train sounds/                        one folder of sound files for each class
    stapes predict runs/sounds-1/model.safetensors new.wav
    stapes evaluate runs/sounds-1/model.safetensors sounds/

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. STAPES_DEBUG=1 shows where an error
came from; OMP_NUM_THREADS sets the number of threads.
"""

app = typer.Typer(
    help=_ABOUT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from stapes import __version__

        typer.echo(f"stapes {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None: ...


for _command in (train, evaluate, predict, demo, info):
    app.command()(_command)

app.add_typer(bench)
