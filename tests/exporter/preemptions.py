"""Writers that share a bucket: each interleaving of their calls with few preemptions, and kills, is tried.

A writer depends on nothing but the answers to its calls and the times that it is told. So what is left to
happen follows from a state: what each writer was answered, what is shared, and whose turn it is. A state that
was met before, with as many preemptions left, is not followed a second time. So of the interleavings that
only differ in the order of calls that do not affect each other, one is run to its end. Nothing else is left
out, and nobody has to tell which calls these are.
"""

import hashlib
import threading
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from consumers.bucket import Listed, PartOfUpload, Upload
from tests.twins import Bucket

TIMEOUT = 60
Answer = TypeVar("Answer")


class Choice(NamedTuple):
    """What happens before a call, or when a writer ends.

    Attributes:
        writer: Who goes on.
        seconds: How much time passes.
        kills: Whether the one who was about to make the call is killed.
    """

    writer: int
    seconds: float = 0
    kills: bool = False


class Point(NamedTuple):
    """A place where another choice is possible: before a call, or when a writer has ended.

    Attributes:
        state: The state there.
        writer: Who goes on unless something else is chosen.
        others: Who else could.
        is_call: Whether the writer is about to make a call: another preempts it.
    """

    state: int
    writer: int
    others: tuple[int, ...]
    is_call: bool


class KilledError(BaseException):
    """The process ended: no code of ours catches it."""


class KnownStateError(BaseException):
    """What comes now was run before."""


class World(Protocol):
    """What writers share."""

    def writers(self) -> list[Callable[[], object]]:
        """Return the writers."""

    def state(self) -> Hashable:
        """Return what is shared, as it is now."""

    def check(self, failures: list[Exception | None]) -> None:
        """Make sure that all is well after the writers have ended, some of them with exceptions."""


class Turns:
    """Lets one writer run at a time, and another from certain points on.

    Args:
        now: The time at the beginning. It passes only where it is chosen to.
        choices: What is chosen, by the number of the point. Else a writer goes on until it ends, and then the
            first that is left.
        name: What its threads' names begin with.
        is_known: Is told the state at each point behind the last choice, and who goes on; tells whether all
            that follows was run before.

    Attributes:
        points: The points behind the last choice.
        now: The time.
        is_over: Whether all that follows was run before.
    """

    def __init__(
        self,
        now: datetime,
        choices: Mapping[int, Choice] | None = None,
        is_known: Callable[[int, int, datetime], bool] | None = None,
        name: str = "writer",
    ) -> None:
        self.now = now
        self._name = name
        self.points: dict[int, Point] = {}
        self.is_over = False
        self._choices = dict(choices or {})
        self._last = max(self._choices, default=-1)
        self._is_known = is_known
        self._state: Callable[[], Hashable] = tuple
        self._count = -1
        self._changed = threading.Condition()
        self._current = -1
        self._left: set[int] = set()
        self._killed: set[int] = set()
        self._answers: list[int] = []

    def run(
        self, writers: list[Callable[[], object]], state: Callable[[], Hashable] = tuple
    ) -> list[Exception | None]:
        """Run writers to their ends, and return what stopped each.

        Args:
            writers: The writers.
            state: Returns what they share, as it is now.
        """
        failures: list[Exception | None] = [None] * len(writers)
        self._left, self._state = set(range(len(writers))), state
        self._answers = [0] * len(writers)

        def run(number: int) -> None:
            with suppress(KilledError, KnownStateError):
                try:
                    self.wait(number)
                    writers[number]()
                except Exception as error:  # noqa: BLE001 - the test looks at it
                    failures[number] = error
                with self._changed:
                    if number in self._left and not self.is_over:
                        self._left.discard(number)
                        # What it was told does not matter any more.
                        self._answers[number] = hash(repr(failures[number]))
                        self._pass_point(-1)

        threads = [
            threading.Thread(target=run, args=(number,), name=f"{self._name} {number}")
            for number in range(len(writers))
        ]
        with self._changed:
            self._pass_point(-1)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        return failures

    @property
    def kills(self) -> int:
        """How many writers were killed."""
        return len(self._killed)

    @property
    def end(self) -> int:
        """What there was in the end, and what the writers were told."""
        return hash((tuple(self._answers), self._state(), self.now))

    def time(self, number: int) -> datetime:
        """Return the time to a writer."""
        self.answered(number, self.now)
        return self.now

    def answered(self, number: int, answer: Hashable) -> None:
        """Take into account what a writer was told."""
        self._answers[number] = hash((self._answers[number], answer))

    def call(self, number: int) -> None:
        """Begin a writer's call: before it, another may have its turn."""
        self.wait(number)
        self.answered(number, "")  # it is not where it was when it began
        with self._changed:
            self._pass_point(number)
        self.wait(number)

    def wait(self, number: int) -> None:
        """Wait until it is a writer's turn.

        Raises:
            KilledError: If the writer was killed.
            KnownStateError: If all that follows was run before.
        """
        with self._changed:
            assert self._changed.wait_for(
                lambda: self._current == number or self.is_over or number in self._killed, TIMEOUT
            )
        if self.is_over:
            raise KnownStateError
        if number in self._killed:
            raise KilledError

    def _pass_point(self, number: int) -> None:
        """Let a writer make its call, or the first go on that is left, unless it is chosen otherwise."""
        self._count += 1
        is_call, writer = number >= 0, number
        if not is_call:
            writer = min(self._left, default=-1)
        if (choice := self._choices.get(self._count)) and choice.writer in {*self._left, -1}:
            writer = choice.writer
            self.now += timedelta(seconds=choice.seconds)
            if choice.kills:
                self._left.discard(number)
                self._killed.add(number)
                self._answers[number] = -1
        if self._count >= self._last and self._left and self._is_known is not None:
            state = hash((tuple(self._answers), frozenset(self._left), self._state()))
            self.is_over = self._is_known(state, writer, self.now)
            if self._count > self._last and not self.is_over:
                others = tuple(sorted(self._left - {writer}))
                self.points[self._count] = Point(state, writer, others, is_call)
        self._current = writer
        self._changed.notify_all()


def interleavings(
    begin: Callable[[Turns], World],
    now: datetime,
    *,
    preemptions: int = 2,
    kills: int = 0,
    seconds: float = 0,
) -> Iterator[dict[int, Choice]]:
    """Run writers in all interleavings, but for those whose rest is the same as another's.

    Args:
        begin: Makes a world, whose writers take the turns that it is given.
        now: The time at the beginning.
        preemptions: How many preemptions there are at most.
        kills: How many writers are killed at most.
        seconds: How much time passes at a preemption, or when a writer is killed.

    Yields:
        What was chosen, after each run.
    """
    known: dict[tuple[int, int, datetime], list[tuple[int, int]]] = {}
    checked: set[int] = set()

    def is_known(key: tuple[int, int, datetime], left: tuple[int, int]) -> bool:
        return any(had[0] >= left[0] and had[1] >= left[1] for had in known.get(key, ()))

    def meet(left: tuple[int, int], state: int, writer: int, at: datetime) -> bool:
        key = (state, writer, at)
        if is_known(key, left):
            return True
        known.setdefault(key, []).append(left)
        return False

    todo: list[tuple[dict[int, Choice], tuple[int, int]]] = [({}, (preemptions, kills))]
    while todo:
        choices, left = todo.pop()
        turns = Turns(now, choices, partial(meet, left))
        world = begin(turns)
        failures = turns.run(world.writers(), world.state)
        if not turns.is_over and turns.end not in checked:
            checked.add(turns.end)
            try:
                world.check(failures)
            except Exception as error:
                raise AssertionError(str(choices)) from error
        yield choices
        for number, point in reversed(turns.points.items()):
            for choice, rest in _choices(point, left, seconds):
                key = (point.state, choice.writer, turns.now + timedelta(seconds=choice.seconds))
                if choice.kills or not is_known(key, rest):
                    todo.append(({**choices, number: choice}, rest))


def _choices(point: Point, left: tuple[int, int], seconds: float) -> Iterator[tuple[Choice, tuple[int, int]]]:
    """Yield what else could be chosen at a point, and how many preemptions and kills are left then."""
    preemptions, kills = left
    for writer in point.others:
        if not point.is_call:
            yield Choice(writer), left
        elif preemptions:
            yield Choice(writer, seconds), (preemptions - 1, kills)
    if point.is_call and kills:
        for writer in point.others or (-1,):
            yield Choice(writer, seconds, kills=True), (preemptions, kills - 1)


class Shared(Bucket):
    """The bucket of all. It knows when objects were written.

    Args:
        content: What is in it.
        check: Is called after each change, with the key that was written; with none after a deletion.
    """

    def __init__(
        self, content: Mapping[str, bytes], check: Callable[[str], None] = lambda _key: None
    ) -> None:
        super().__init__(content)
        self.check = check

    def written(self, key: str, now: datetime) -> None:
        """Keep when an object was written."""
        self.modified[key] = now
        self.check(key)

    def state(self) -> Hashable:
        """Return all of it."""
        uploads = tuple((name, tuple(sorted(parts.items()))) for name, parts in self.uploads.items())
        return frozenset(self.items()), frozenset(self.modified.items()), uploads, len(self.begun)


class View(Bucket):
    """The bucket as one writer has it: it may be preempted before each call."""

    def __init__(self, shared: Shared, turns: Turns, number: int) -> None:
        super().__init__()
        self._shared, self._turns, self._number = shared, turns, number

    def _call(self, call: Callable[[], Answer]) -> Answer:
        self._turns.call(self._number)
        try:
            answer = call()
        except Exception as error:
            self._turns.answered(self._number, repr(error))
            raise
        self._turns.answered(self._number, repr(answer) if isinstance(answer, list | dict) else answer)
        return answer

    def _write(self, key: str, call: Callable[[], Answer]) -> Answer:
        answer = self._call(call)
        if answer is not False:
            self._shared.written(key, self._turns.now)
        return answer

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        body = b"".join(chunks)
        self._write(key, lambda: self._shared.put(key, [body], content_type))

    def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
        return self._call(lambda: self._shared.get(key))

    def stream(self, key: str) -> Iterator[bytes]:
        return iter(self._call(lambda: tuple(self._shared.stream(key))))

    def listed(self, prefix: str) -> Iterator[Listed]:
        return iter(self._call(lambda: tuple(self._shared.listed(prefix))))

    def has(self, key: str) -> bool:
        return self._call(lambda: self._shared.has(key))

    def delete(self, keys: Iterable[str]) -> None:
        if keys := list(keys):
            self._call(lambda: self._shared.delete(keys))
            self._shared.check("")

    def read(self, key: str) -> tuple[bytes, str] | None:
        return self._call(lambda: self._shared.read(key))

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        return self._write(key, lambda: self._shared.replace(key, body, tag))

    def remove(self, key: str, tag: str) -> bool:
        return self._call(lambda: self._shared.remove(key, tag))

    def begin(self, key: str, content_type: str, *, filename: str, metadata: Mapping[str, str]) -> Upload:
        return self._call(lambda: self._shared.begin(key, content_type, filename=filename, metadata=metadata))

    def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload:
        return self._call(lambda: self._shared.add(upload, number, body))

    def complete(self, upload: Upload, parts: Sequence[PartOfUpload]) -> None:
        self._write(upload.key, lambda: self._shared.complete(upload, parts))

    def abort(self, upload: Upload) -> None:
        self._call(lambda: self._shared.abort(upload))


class OneThread:
    """An executor that does everything at once, in the thread that asks."""

    def __init__(self, max_workers: int = 1) -> None:
        self.max_workers = max_workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Answer], *arguments: Any) -> "Future[Answer]":
        future: Future[Answer] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - the caller of result() gets it
            future.set_exception(error)
        return future

    def map(self, function: Callable[..., Answer], *items: Iterable[Any]) -> list[Answer]:
        return list(map(function, *items))


class Tokens:
    """Random texts, which are the same in each run: those of a thread follow from its name."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def token_hex(self, size: int) -> str:
        """Return a text of twice as many characters, another one at each call of a thread."""
        count = self._of_thread.count = getattr(self._of_thread, "count", 0) + 1
        seed = f"{threading.current_thread().name} {count}"
        return hashlib.sha256(seed.encode()).hexdigest()[: 2 * size]

    def uuid4(self) -> uuid.UUID:
        """Return another name at each call of a thread."""
        return uuid.UUID(self.token_hex(16))
