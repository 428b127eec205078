"""`python -m cli` is the `tagline` command."""

from cli.main import run

if __name__ == "__main__":
    run()
