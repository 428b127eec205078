"""Threads that call services: a call that does not return in time is left behind, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

from consumers.deadlines import END

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Workers(ThreadPoolExecutor):
    """Threads that stay from one invocation to the next.

    Args:
        threads: Calls at the same time.

    Attributes:
        threads: Calls at the same time.
        left_behind: Whether a call was left behind. Its thread may be busy for long, so the next invocation
            should have other workers: `renewed`.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads, "call")
        self.threads = threads
        self.left_behind = False

    def answer(self, future: Future[Result], seconds: float) -> Result:
        """Return what a call returns; what it raises passes through.

        Args:
            future: The call.
            seconds: How long it is waited for.

        Raises:
            TimeoutError: If it takes longer. It is not begun any more, or left behind.
        """
        try:
            return future.result(max(0.0, seconds))
        except TimeoutError:
            if not (future.done() or future.cancel()):
                self.left_behind = True
            raise

    def at_once(
        self, left: Callable[[], float], call: Callable[[Argument], bool], items: Iterable[Argument]
    ) -> Iterator[bool]:
        """Yield what each call returns, in the order of the items; False for one that takes too long.

        Args:
            left: Gives the seconds that are left for all of them.
            call: What to call.
            items: Its arguments.
        """
        for future in [self.submit(call, item) for item in items]:
            try:
                yield self.answer(future, left())
            except TimeoutError:
                yield False

    def renewed(self) -> Self:
        """Return workers that are all free: these, unless a call was left behind."""
        if not self.left_behind:
            return self
        self.shutdown(wait=False)
        return type(self)(self.threads)


class TimedWriter:
    """Writes objects one by one, each within the time that the invocation has left.

    Args:
        write: Writes an object, and raises OSError if it is not known to be written.
        workers: Their threads write.
        remaining: Gives the seconds that are left of the invocation.
    """

    def __init__(
        self, write: Callable[[str, bytes], None], workers: Workers, remaining: Callable[[], float]
    ) -> None:
        self._write = write
        self._workers = workers
        self._remaining = remaining

    def write(self, key: str, body: bytes) -> None:
        """Write an object.

        Raises:
            OSError: If it is not known to be written.
        """
        self._workers.answer(self._workers.submit(self._write, key, body), self._remaining() - END)
