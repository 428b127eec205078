"""Requests under way: several at once, in their order, within the invocation's time."""

from __future__ import annotations

import gc
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Final, Generic, NamedTuple

from consumers.deadlines import ANSWER, END
from consumers.lines.telemetry import Timings
from consumers.rows.store import (
    Carried,
    Carrier,
    Duplicate,
    Outcome,
    Packed,
    Refused,
    Store,
    Stored,
    Undecided,
    Unwritten,
)
from consumers.workers import Workers

# Requests to the store at the same time, where the setting says nothing.
THREADS: Final = 8
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 1,024 threads and processes in all;
# beyond some dozens they only wait for the interpreter.
MAX_THREADS: Final = 64
# How many are under way until one of the store's answers has taken this long, in seconds.
FEW_AHEAD: Final = 2
LONG_WAIT: Final = 0.004
# After so many rows of a kind were refused one by one, and none was stored, a request that has only rows of
# this kind and is refused as a whole is not sent again in parts: its rows are refused like the others.
ENOUGH_REFUSED: Final = 8

Answer = Sequence[Outcome | Undecided]


class Pool(Workers):
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


Written = tuple[list[Carried[Carrier, Packed]], list[Outcome]]
"""Rows with their outcomes."""

Decided = tuple[Carried[Carrier, Packed], Outcome]
"""A row with its outcome."""


def write(
    store: Store[Packed],
    requests: Iterable[list[Carried[Carrier, Packed]]],
    remaining: Callable[[], float],
    pool: Pool,
    timings: Timings,
    replace: Callable[[Carrier, Refused], Packed | None] = lambda _carrier, _refused: None,
) -> Generator[Written[Carrier, Packed]]:
    """Yield rows with their outcomes; several requests are under way at once, in their order.

    A request that the store refuses as a whole is sent again in parts, which are under way at once as well.

    Args:
        store: Where rows are written.
        requests: The requests' rows.
        remaining: Gives the seconds that are left.
        pool: Its threads send.
        timings: Is told how long was waited.
        replace: Returns the row to send instead of one that is refused as `invalid`; None if there is none.
    """
    under_way: UnderWay[Carrier, Packed] = UnderWay(store, remaining, pool, timings, replace)
    try:
        for request in requests:
            under_way.send(request)
            if len(under_way) >= pool.ahead:
                yield from under_way.receive()
        while under_way:
            yield from under_way.receive()
    finally:
        under_way.wait()  # none is left behind by an invocation that ends early


class _Sent(NamedTuple, Generic[Carrier, Packed]):
    """A request under way: its rows, its answer, and its kind if it is a part of one that was refused."""

    rows: list[Carried[Carrier, Packed]]
    answer: Future[Answer]
    kind: Hashable | None


class UnderWay(Generic[Carrier, Packed]):
    """The requests that are under way, oldest first; for the arguments, see `write`."""

    def __init__(
        self,
        store: Store[Packed],
        remaining: Callable[[], float],
        pool: Pool,
        timings: Timings,
        replace: Callable[[Carrier, Refused], Packed | None],
    ) -> None:
        self._store = store
        self._remaining = remaining
        self._pool = pool
        self._timings = timings
        self._replace = replace
        self._sent: deque[_Sent[Carrier, Packed]] = deque()
        self._refused_kinds = RefusedKinds()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, rows: list[Carried[Carrier, Packed]], kind: Hashable | None = None) -> None:
        """Send a request.

        Args:
            rows: Its rows.
            kind: The kind of all of them; None if it is not known.
        """
        answer = self._pool.submit(self._store.write, [row for _, row in rows], self._remaining)
        self._sent.append(_Sent(rows, answer, kind))

    def receive(self) -> Iterator[Written[Carrier, Packed]]:
        """Take the oldest answer: yield the rows that it decides, and send the others again."""
        rows, answer, kind = self._sent.popleft()
        try:
            with self._timings.stage("write"):
                outcomes = self._pool.answer_of(answer, self._remaining() - ANSWER)
        except TimeoutError:
            # A request can take longer than is left, and must not take the invocation with it. Should its
            # rows be stored after all, the next delivery finds them there.
            yield rows, [Unwritten("no answer in time")] * len(rows)
            return
        if kind is not None:
            self._refused_kinds.learn(kind, outcomes)
        decided, parts = split(rows, outcomes)
        alike = len({undecided.kind for undecided, _ in parts}) == 1
        for undecided, part in parts:
            if alike and self._refused_kinds.has(undecided.kind):
                refused = Refused("invalid", undecided.detail)
                decided += [(row, refused) for row in part]
            else:
                self.send(part, undecided.kind)
        decided = self._send_replaced(decided)
        if decided:
            yield [row for row, _ in decided], [outcome for _, outcome in decided]

    def _send_replaced(self, decided: list[Decided[Carrier, Packed]]) -> list[Decided[Carrier, Packed]]:
        """Send rows instead of those that are refused; return all that none is sent instead of."""
        final: list[Decided[Carrier, Packed]] = []
        replaced: list[Carried[Carrier, Packed]] = []
        for (carrier, row), outcome in decided:
            other = None
            if isinstance(outcome, Refused) and outcome.reason == "invalid":
                other = self._replace(carrier, outcome)
            if other is None:
                final.append(((carrier, row), outcome))
            else:
                replaced.append((carrier, other))
        if replaced:
            self.send(replaced)
        return final

    def wait(self) -> None:
        """Wait until none is under way, or the invocation's time is over."""
        wait([sent.answer for sent in self._sent], max(0.0, self._remaining() - END))


class RefusedKinds:
    """Which kinds of rows the store refuses, as far as a batch has shown."""

    def __init__(self) -> None:
        self._accepted: set[Hashable] = set()
        self._refused: Counter[Hashable] = Counter()

    def learn(self, kind: Hashable, outcomes: Answer) -> None:
        """Take note of what became of a request whose rows are all of one kind."""
        if any(isinstance(outcome, Stored | Duplicate) for outcome in outcomes):
            self._accepted.add(kind)
        # Only a row that was alone is certain to be what the store refused.
        if len(outcomes) == 1 and isinstance(outcomes[0], Refused) and outcomes[0].reason == "invalid":
            self._refused[kind] += 1

    def has(self, kind: Hashable) -> bool:
        """Return whether a kind was refused often enough, and never accepted."""
        return self._refused[kind] >= ENOUGH_REFUSED and kind not in self._accepted


def split(
    rows: list[Carried[Carrier, Packed]], outcomes: Answer
) -> tuple[
    list[tuple[Carried[Carrier, Packed], Outcome]], list[tuple[Undecided, list[Carried[Carrier, Packed]]]]
]:
    """Return the rows that have an outcome, and the others in parts: by their kinds, or else in halves."""
    decided: list[tuple[Carried[Carrier, Packed], Outcome]] = []
    kinds: dict[Hashable, list[Carried[Carrier, Packed]]] = defaultdict(list)
    undecided: dict[Hashable, Undecided] = {}
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, Undecided):
            kinds[outcome.kind].append(row)
            undecided[outcome.kind] = outcome
        else:
            decided.append((row, outcome))
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
