"""The `tagline` command: its groups of commands, and what it prints when one cannot do what it was asked."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.text import Text

from cli.commands import ask, here, kept, lake, operate, schema
from cli.errors import CommandError
from cli.screen import err
from consumers.errors import TaglineError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (here, ask, operate, lake, kept, schema):
    app.add_typer(commands.app)


def print_version(wanted: bool) -> None:
    """Print the version, if it is asked for."""
    if wanted:
        typer.echo(f"tagline {metadata.version('tagline-pipeline')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """One tagged log line is an API's usage record: the pipeline on this machine, and what is in it."""


def run() -> None:
    """Run the command; print an error as a sentence, with what to do next."""
    try:
        app()
    except TaglineError as error:
        advice = (
            error.advice if isinstance(error, CommandError) else "try again, or see docs/reference/errors.md"
        )
        for style, label, text in (("bold red", "error:", str(error)), ("bold", "next:", advice)):
            err.print(Text(label, style), text, highlight=False)
        sys.exit(1)
