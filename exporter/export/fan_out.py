"""One source of items for several consumers that run side by side. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from typing import NamedTuple, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# How many items a consumer can be behind the source.
_AHEAD = 2


class _End(NamedTuple):
    """The mark after the last item; it has the error that ended the items, if one did."""

    error: BaseException | None


class _Feed(Iterator[_Item]):
    """The items of one consumer, from whichever of its threads it takes them."""

    def __init__(self) -> None:
        self.is_wanted = True
        self._queue: Queue[_Item | _End] = Queue(_AHEAD)

    def __next__(self) -> _Item:
        item = self._queue.get()
        if not isinstance(item, _End):
            return item
        self._queue.put(item)  # for the next call, in whichever thread
        if item.error is not None:
            raise item.error
        raise StopIteration

    def put(self, item: _Item | _End) -> None:
        """Give the consumer an item as soon as it has room, unless it has ended."""
        if self.is_wanted:
            self._queue.put(item)

    def stop(self) -> None:
        """End the items for a consumer that needs no more, also for its threads that wait for one."""
        self.is_wanted = False
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        # The source may put one item meanwhile; there is room for both.
        self._queue.put(_End(None))


def fan_out(
    items: Iterable[_Item], consumers: Sequence[Callable[[Iterator[_Item]], _Result]]
) -> list[_Result | Exception]:
    """Give every item to every consumer, each in a thread, and return what became of each.

    A consumer that fails, or needs no more items, does not stop the others. The source is read as long as one
    needs items, and is at most two items ahead of the slowest.

    Args:
        items: The source, iterated in this thread.
        consumers: Functions of an iterator over the items.

    Returns:
        Each consumer's result, or the exception that it raised. If the source raises, so does each iterator.
    """
    feeds: list[_Feed[_Item]] = [_Feed() for _ in consumers]

    def run(consumer: Callable[[Iterator[_Item]], _Result], feed: _Feed[_Item]) -> _Result:
        try:
            return consumer(feed)
        finally:
            feed.stop()

    with ThreadPoolExecutor(len(feeds)) as pool:
        futures = [pool.submit(run, *pair) for pair in zip(consumers, feeds, strict=True)]
        error: BaseException | None = None
        try:
            for item in items:
                for feed in feeds:
                    feed.put(item)
                if not any(feed.is_wanted for feed in feeds):
                    break
        except BaseException as raised:  # noqa: BLE001 - the consumers raise it
            error = raised
        for feed in feeds:
            feed.put(_End(error))
    outcomes: list[_Result | Exception] = []
    for future in futures:
        failure = future.exception()
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        outcomes.append(future.result() if failure is None else failure)
    return outcomes
