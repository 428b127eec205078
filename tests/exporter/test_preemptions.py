"""The interleavings that are tried are all that there are."""

from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from functools import partial

import pytest

from tests.exporter.preemptions import Shared, Turns, View, interleavings

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Log:
    """Writers that append to one text, each letter by reading it and writing it again."""

    def __init__(self, turns: Turns, texts: tuple[str, ...], seen: set[str]) -> None:
        self.shared = Shared({"log": b""})
        self.turns, self.texts, self.seen = turns, texts, seen

    def writers(self) -> list[Callable[[], object]]:
        return [partial(self.write, number) for number in range(len(self.texts))]

    def write(self, number: int) -> None:
        view = View(self.shared, self.turns, number)
        for letter in self.texts[number]:
            view.put("log", [(view.get("log") or b"") + letter.encode()], "text/plain")

    def state(self) -> Hashable:
        return self.shared.state()

    def check(self, failures: list[Exception | None]) -> None:
        assert failures == [None] * len(self.texts)
        self.seen.add(self.shared["log"].decode())


def every_log(texts: tuple[str, ...], preemptions: int) -> set[str]:
    """Return what can be in the log in the end, by trying each order of the calls."""
    found: set[str] = set()

    def go(log: str, read: tuple[str | None, ...], done: tuple[int, ...], current: int, left: int) -> None:
        ready = [number for number, text in enumerate(texts) if done[number] < len(text)]
        if not ready:
            found.add(log)
        for number in ready:
            cost = int(number != current and current in ready)
            if cost > left:
                continue
            had = read[number]
            if had is None:
                go(log, (*read[:number], log, *read[number + 1 :]), done, number, left - cost)
            else:
                after = (*done[:number], done[number] + 1, *done[number + 1 :])
                letter = texts[number][done[number]]
                go(had + letter, (*read[:number], None, *read[number + 1 :]), after, number, left - cost)

    go("", (None,) * len(texts), (0,) * len(texts), -1, preemptions)
    return found


@pytest.mark.parametrize("texts", [("ab", "c"), ("ab", "cd"), ("ab", "c", "d"), ("ab", "cd", "ef")], ids=str)
@pytest.mark.parametrize("preemptions", [0, 1, 2, 3])
def test_each_end_that_is_possible_is_reached_and_no_other(texts: tuple[str, ...], preemptions: int) -> None:
    seen: set[str] = set()

    for _ in interleavings(lambda turns: Log(turns, texts, seen), NOW, preemptions=preemptions):
        pass

    assert seen == every_log(texts, preemptions)


def test_a_killed_writer_makes_no_further_call() -> None:
    seen: set[str] = set()

    for _ in interleavings(lambda turns: Log(turns, ("ab", "c"), seen), NOW, preemptions=0, kills=1):
        pass

    assert seen == {"abc", "cab", "c", "ac", "ab", "ca"}
