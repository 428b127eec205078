"""One thread writes the records of invocations whose time runs out."""

from __future__ import annotations

import threading
import time
import weakref

from .annotations import TYPE_CHECKING, Optional
from .output import after_copy

if TYPE_CHECKING:
    from .collecting import Draft

# A 128 MB function gets a twelfth of a vCPU in time slices; 200 ms before the deadline there is still time to
# write the record.
DEFAULT_TIMEOUT_MARGIN_MS = 200

# By the draft's id. Watching an invocation costs one dict entry: the thread sleeps until the earliest time
# that was due when it looked, however many invocations begin and end meanwhile.
_due: dict[int, tuple[float, weakref.ref[Draft]]] = {}
_lock = threading.Lock()
_watcher: Optional[_Watcher] = None


def watch(draft: Draft, seconds: float) -> None:
    """Have a draft's time run out after some seconds, unless it is written before."""
    global _watcher
    due = time.monotonic() + seconds
    with _lock:
        _due[id(draft)] = due, weakref.ref(draft)
        if _watcher is None:
            watcher = _Watcher(due)
            try:
                watcher.start()
            except RuntimeError:
                return  # no more threads: the invocation goes on without a watch
            _watcher = watcher
        elif due < _watcher.until:
            _watcher.until = due
            _watcher.wake.set()


def forget(draft: Draft) -> None:
    """Stop watching a draft."""
    _due.pop(id(draft), None)


class _Watcher(threading.Thread):
    def __init__(self, until: float) -> None:
        super().__init__(name="tagline-timeout", daemon=True)
        self.until = until
        self.wake = threading.Event()

    def run(self) -> None:
        while True:
            self.wake.wait(min(max(self.until - time.monotonic(), 0), threading.TIMEOUT_MAX))
            self._run_out()

    def _run_out(self) -> None:
        with _lock:
            self.wake.clear()
            now = time.monotonic()
            late = [_due.pop(key, None) for key, (due, _) in list(_due.items()) if due <= now]
            self.until = min((due for due, _ in list(_due.values())), default=float("inf"))
        for draft in [found[1]() for found in late if found]:
            if draft is not None:
                draft.run_out()


def _forget_all() -> None:
    global _watcher, _lock
    _due.clear()
    # A restored snapshot has the thread, a forked child has not.
    if _watcher is not None and not _watcher.is_alive():
        _watcher, _lock = None, threading.Lock()


after_copy(_forget_all)
