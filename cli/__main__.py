"""The `tagline` command, which `python -m cli` is too: Ctrl-C ends it quietly, however early it comes."""

import sys

_INTERRUPTED = 130  # as shells have it: 128 and the signal's number


def main() -> None:
    """Import the command and run it."""
    try:
        from cli.main import run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
