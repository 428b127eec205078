"""Requests under way: several at once, in their order, within the invocation's time."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

from consumers.deadlines import LAST
from consumers.lines.telemetry import Timings
from consumers.rows.store import Carried, Carrier, Outcome, Packed, Store, Unwritten

# Requests to the store at the same time, where the setting says nothing.
THREADS: Final = 8
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 1,024 threads and processes in all;
# beyond some dozens they only wait for the interpreter.
MAX_THREADS: Final = 64
# How many are under way until one of the store's answers has taken this long, in seconds.
FEW_AHEAD: Final = 2
LONG_WAIT: Final = 0.004


class Pool(ThreadPoolExecutor):
    """Threads that send requests; they stay from one invocation to the next, asleep.

    Threads that wait for nothing only compete for the interpreter. So a store that answers at once gets few
    requests at a time. The limit doubles after each slow answer, up to all threads, and drops by one whenever
    an answer is already there.

    Attributes:
        ahead: The limit: so many requests are under way at most.
        most: The limit's highest value: two more than there are threads, so that none of them waits for the
            next request to be read.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(threads, "write")
        self.ahead = FEW_AHEAD
        self.most = threads + 2
        self._clock = clock

    def result(self, future: Future[list[Outcome]], timeout: float | None = None) -> list[Outcome]:
        """Return a request's outcomes, and adjust the limit to how long they took.

        Args:
            future: The request.
            timeout: How long it is waited for, in seconds; None for as long as it takes.

        Raises:
            TimeoutError: If it takes longer.
        """
        if future.done():
            self.ahead = max(FEW_AHEAD, self.ahead - 1)
            return future.result()
        began = self._clock()
        outcomes = future.result(timeout)
        if self._clock() - began > LONG_WAIT:
            self.ahead = min(self.most, 2 * self.ahead)
        return outcomes


def write(
    store: Store[Packed],
    requests: Iterable[list[Carried[Carrier, Packed]]],
    remaining: Callable[[], float],
    pool: Pool | None,
    timings: Timings,
) -> Iterator[tuple[list[Carried[Carrier, Packed]], list[Outcome]]]:
    """Yield each request's rows with their outcomes; several requests are under way at once, in their order.

    Args:
        store: Where rows are written.
        requests: The requests' rows.
        remaining: Gives the seconds that are left.
        pool: Sends several at once; None for one after the other.
        timings: Is told how long was waited.
    """

    def send(request: list[Carried[Carrier, Packed]]) -> list[Outcome]:
        return store.write([row for _, row in request], remaining)

    if pool is None:
        for request in requests:
            with timings.stage("write"):
                outcomes = send(request)
            yield request, outcomes
        return

    under_way: deque[tuple[list[Carried[Carrier, Packed]], Future[list[Outcome]]]] = deque()

    def oldest() -> tuple[list[Carried[Carrier, Packed]], list[Outcome]]:
        request, future = under_way.popleft()
        with timings.stage("write"):
            try:
                return request, pool.result(future, max(0.0, remaining() - LAST))
            except TimeoutError:
                # A request can take longer than is left, and must not take the invocation with it. Should its
                # rows be stored after all, the next delivery finds them there.
                return request, [Unwritten("no answer in time")] * len(request)

    try:
        for request in requests:
            under_way.append((request, pool.submit(send, request)))
            if len(under_way) >= pool.ahead:
                yield oldest()
        while under_way:
            yield oldest()
    finally:
        wait([future for _, future in under_way])  # none is left behind by an invocation that ends early


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Disable garbage collection for the block: a batch's lines form no reference cycles.

    Scanning them is wasted work. A request leaves three objects in cycles, which are collected afterwards.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
