"""`python -m cli` is the `tagline` command."""

from cli.main import run

run()
