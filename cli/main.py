"""The `tagline` command: its groups of commands, and what it prints when one cannot do what it was asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer
from rich.text import Text

from cli.commands import ask, cost, here, kept, lake, operate, schema
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
for commands in (here, ask, operate, cost, lake, kept, schema):
    app.add_typer(commands.app)

_FAILED = 1


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
    """One tagged log line is an API's usage record: run the pipeline here, and ask it or a stack on AWS."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command; print an error as a sentence, with what to do next.

    Args:
        arguments: What follows the command's name. Default: those of this process.

    Raises:
        SystemExit: Always, with the command's status.
    """
    try:
        status = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        _print_problem(*problem)
        _drop_output()
        status = getattr(error, "exit_code", _FAILED)
    sys.exit(status)


def problem_of(error: Exception) -> tuple[str, str] | None:
    """Return what went wrong, and what to do next; None for an error of this program."""
    if isinstance(error, CommandError):
        return str(error), error.advice
    if isinstance(error, TaglineError):
        return str(error), "try again, or see docs/reference/errors.md"
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        # A group without a command has printed its help.
        advice = f"see {context.command_path} --help" if context else "see tagline --help"
        return ("", "") if type(error).__name__ == "NoArgsIsHelpError" else (error.format_message(), advice)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r:.200} is not UTF-8", "give it in UTF-8"
    if isinstance(error, OSError):
        return f"{error}", "see docs/reference/errors.md if the reason is not in it, and try again"
    # Imported by the commands that call AWS alone.
    aws = sys.modules.get("botocore.exceptions")
    if aws is not None and isinstance(error, aws.BotoCoreError | aws.ClientError):
        return str(error), "check credentials, region and permissions, and try again"
    return None


def _drop_output() -> None:
    """Drop what cannot be written to standard output: Python would try again, and end with its own status."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_problem(problem: str, advice: str) -> None:
    try:
        for style, label, text in (("bold red", "error:", problem), ("bold", "next:", advice)):
            if text:
                err.print(Text(label, style), text, highlight=False)
    except OSError:
        pass  # standard error cannot be written to
