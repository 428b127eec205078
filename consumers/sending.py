"""Requests to a service: several at once, in their order, within the invocation's time."""

from __future__ import annotations

import gc
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from consumers.deadlines import ANSWER, END
from consumers.lines.telemetry import Timings
from consumers.outcomes import (
    Carried,
    Carrier,
    Duplicate,
    Item,
    Outcome,
    Refused,
    Stored,
    Undecided,
    Unwritten,
    all_stored,
)
from consumers.workers import Workers

# Requests to the store at the same time, if the setting is missing.
THREADS: Final = 8
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 1,024 threads and processes in all;
# beyond some dozens they only wait for the interpreter.
MAX_THREADS: Final = 64
# How many are under way until one of the answers has taken this long, in seconds.
FEW_AHEAD: Final = 2
LONG_WAIT: Final = 0.004
# After so many items of a kind were refused one by one, and none was stored, a request that has only items of
# this kind and is refused as a whole is not sent again in parts: its items are refused like the others.
ENOUGH_REFUSED: Final = 8

Answer = Sequence[Outcome | Undecided]

Item_contra = TypeVar("Item_contra", contravariant=True)


class Writer(Protocol[Item_contra]):
    """Where items are written. Several threads use it at once."""

    def write(self, items: Sequence[Item_contra], remaining: Callable[[], float], /) -> Answer:
        """Write one request's items and return the outcome of each; a single item is never `Undecided`."""


class Pool(Workers):
    """Threads that send requests; they stay from one invocation to the next, asleep.

    Threads that wait for nothing only compete for the interpreter. So a service that answers at once gets few
    requests at a time. The limit doubles after each slow answer, up to all threads, and drops by one whenever
    an answer is already there.

    Attributes:
        ahead: The limit: so many requests are under way at most.
        most: The highest value of the limit: two more than the threads, so that no thread waits while a
            request is read.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(threads)
        self.ahead = FEW_AHEAD
        self.most = threads + 2
        self._clock = clock

    def answer_of(self, future: Future[Answer], seconds: float) -> Answer:
        """Return a request's outcomes, and adjust the limit to how long they took.

        Args:
            future: The request.
            seconds: How long it is waited for.

        Raises:
            TimeoutError: If it takes longer.
        """
        if future.done():
            self.ahead = max(FEW_AHEAD, self.ahead - 1)
            return future.result()
        began = self._clock()
        outcomes = self.answer(future, seconds)
        if self._clock() - began > LONG_WAIT:
            self.ahead = min(self.most, 2 * self.ahead)
        return outcomes


Written = tuple[list[Carried[Carrier, Item]], list[Outcome]]
"""Items with their outcomes."""

Decided = tuple[Carried[Carrier, Item], Outcome]
"""A item with its outcome."""


def write(
    writer: Writer[Item],
    requests: Iterable[list[Carried[Carrier, Item]]],
    remaining: Callable[[], float],
    pool: Pool,
    timings: Timings,
    *,
    replace: Callable[[Carrier, Refused], Item | None] = lambda _carrier, _refused: None,
) -> Generator[Written[Carrier, Item]]:
    """Yield items with their outcomes; several requests are under way at once, in their order.

    A request that the service refuses as a whole is sent again in parts, which are under way at once as well.

    Args:
        writer: Where items are written.
        requests: The requests' items.
        remaining: Gives the seconds that are left.
        pool: Its threads send.
        timings: Adds up how long was waited.
        replace: Returns what to send instead of an item that is refused as `invalid`, or None.
    """
    under_way: UnderWay[Carrier, Item] = UnderWay(writer, remaining, pool, timings, replace)
    try:
        for request in requests:
            under_way.send(request)
            if len(under_way) >= pool.ahead:
                yield from under_way.receive()
        while under_way:
            yield from under_way.receive()
    finally:
        under_way.wait()  # none is left behind by an invocation that ends early


class _Sent(NamedTuple, Generic[Carrier, Item]):
    """A request under way: its items, its answer, and its kind if it is a part of one that was refused."""

    items: list[Carried[Carrier, Item]]
    answer: Future[Answer]
    kind: Hashable | None


class UnderWay(Generic[Carrier, Item]):
    """The requests that are under way, oldest first; for the arguments, see `write`."""

    def __init__(
        self,
        writer: Writer[Item],
        remaining: Callable[[], float],
        pool: Pool,
        timings: Timings,
        replace: Callable[[Carrier, Refused], Item | None],
    ) -> None:
        self._writer = writer
        self._remaining = remaining
        self._pool = pool
        self._timings = timings
        self._replace = replace
        self._sent: deque[_Sent[Carrier, Item]] = deque()
        self._refused_kinds = RefusedKinds()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, items: list[Carried[Carrier, Item]], kind: Hashable | None = None) -> None:
        """Send a request.

        Args:
            items: Its items.
            kind: The kind of all of them; None if it is not known.
        """
        answer = self._pool.submit(self._writer.write, [item for _, item in items], self._remaining)
        self._sent.append(_Sent(items, answer, kind))

    def receive(self) -> Iterator[Written[Carrier, Item]]:
        """Take the oldest answer: yield the items that it decides, and send the others again."""
        items, answer, kind = self._sent.popleft()
        try:
            with self._timings.stage("write"):
                outcomes = self._pool.answer_of(answer, self._remaining() - ANSWER)
        except TimeoutError:
            # A request can take longer than is left, and must not take the invocation with it. Should its
            # items be stored after all, the next delivery finds them there.
            yield items, [Unwritten("no answer in time")] * len(items)
            return
        if kind is not None:
            self._refused_kinds.learn(kind, outcomes)
        if all_stored(outcomes):
            yield items, [Stored()] * len(items)
            return
        decided, parts = split(items, outcomes)
        alike = len({undecided.kind for undecided, _ in parts}) == 1
        for undecided, part in parts:
            if alike and self._refused_kinds.has(undecided.kind):
                refused = Refused("invalid", undecided.detail)
                decided += [(item, refused) for item in part]
            else:
                self.send(part, undecided.kind)
        decided = self._send_replaced(decided)
        if decided:
            yield [item for item, _ in decided], [outcome for _, outcome in decided]

    def _send_replaced(self, decided: list[Decided[Carrier, Item]]) -> list[Decided[Carrier, Item]]:
        """Send other items instead of refused ones, where there are others; return the rest."""
        final: list[Decided[Carrier, Item]] = []
        replaced: list[Carried[Carrier, Item]] = []
        for (carrier, item), outcome in decided:
            other = None
            if isinstance(outcome, Refused) and outcome.reason == "invalid":
                other = self._replace(carrier, outcome)
            if other is None:
                final.append(((carrier, item), outcome))
            else:
                replaced.append((carrier, other))
        if replaced:
            self.send(replaced)
        return final

    def wait(self) -> None:
        """Wait until none is under way, or the invocation's time is over."""
        wait([sent.answer for sent in self._sent], max(0.0, self._remaining() - END))


class RefusedKinds:
    """Which kinds of items the service refuses, as far as a batch has shown."""

    def __init__(self) -> None:
        self._accepted: set[Hashable] = set()
        self._refused: Counter[Hashable] = Counter()

    def learn(self, kind: Hashable, outcomes: Answer) -> None:
        """Take note of what became of a request whose items are all of one kind."""
        if any(isinstance(outcome, Stored | Duplicate) for outcome in outcomes):
            self._accepted.add(kind)
        # Only an item that was alone is certain to be what the service refused.
        if len(outcomes) == 1 and isinstance(outcomes[0], Refused) and outcomes[0].reason == "invalid":
            self._refused[kind] += 1

    def has(self, kind: Hashable) -> bool:
        """Return whether a kind was refused often enough, and never accepted."""
        return self._refused[kind] >= ENOUGH_REFUSED and kind not in self._accepted


def split(
    items: list[Carried[Carrier, Item]], outcomes: Answer
) -> tuple[
    list[tuple[Carried[Carrier, Item], Outcome]], list[tuple[Undecided, list[Carried[Carrier, Item]]]]
]:
    """Return the items that have an outcome, and the others in parts: by their kinds, or else in halves."""
    decided: list[tuple[Carried[Carrier, Item], Outcome]] = []
    kinds: dict[Hashable, list[Carried[Carrier, Item]]] = defaultdict(list)
    undecided: dict[Hashable, Undecided] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        if isinstance(outcome, Undecided):
            kinds[outcome.kind].append(item)
            undecided[outcome.kind] = outcome
        else:
            decided.append((item, outcome))
    if len(kinds) > 1:
        return decided, [(undecided[kind], part) for kind, part in kinds.items()]
    return decided, [
        (undecided[kind], part)
        for kind, alike in kinds.items()
        for part in (alike[: len(alike) // 2], alike[len(alike) // 2 :])
        if part
    ]


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
