"""`python -m tagline_pipeline` is the `tagline` command."""

from tagline_pipeline import run

if __name__ == "__main__":
    run()
