"""Iterate one item ahead, in another thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items; while one is used, the next is made in another thread.

    A function of one processor or less gains the time that it would have waited for the store to answer and
    for S3 to take a file. A caller that stops early does not wait for the item that is being made.
    """
    source = iter(items)
    thread = ThreadPoolExecutor(1)
    coming = thread.submit(next, source, None)
    try:
        while (item := coming.result()) is not None:
            coming = thread.submit(next, source, None)
            yield item
    finally:
        # A thread that begins before the last one has ended gets another arena of the allocator.
        thread.shutdown(wait=coming.done())
