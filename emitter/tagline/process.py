"""When this process is a copy of another: a forked child, or an environment restored from a snapshot."""

from __future__ import annotations

import os

from .annotations import Callable

IS_SNAPSTART = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"

_resets: list[Callable[[], None]] = []


def after_copy(reset: Callable[[], None]) -> None:
    """Have a function called in every copy of this process, before anything else of the emitter runs there."""
    _resets.append(reset)


def _reset_all() -> None:
    for reset in _resets:
        reset()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_reset_all)
if IS_SNAPSTART:
    # https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    try:
        from snapshot_restore_py import register_after_restore  # type: ignore[import-untyped]
    except ImportError:
        pass  # then a source begins with its first line, which most functions write after the restore
    else:
        register_after_restore(_reset_all)
