"""One source of items, and consumers that run side by side."""

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from exporter.export.fan_out import fan_out

Consumer = Callable[[Iterator[int]], object]


def fanned_out(items: Iterable[int], *consumers: Consumer) -> list[object]:
    return [*fan_out(items, consumers)]


def test_every_consumer_gets_every_item_in_order() -> None:
    assert fanned_out(range(100), list, sum, max) == [list(range(100)), sum(range(100)), 99]


def test_a_source_without_items_ends_each_consumer() -> None:
    assert fanned_out([], list, list) == [[], []]


@pytest.mark.parametrize("ends", [next, lambda items: [next(items), 1 / 0]])
def test_a_consumer_that_stops_early_does_not_stop_the_others(
    ends: Callable[[Iterator[int]], object],
) -> None:
    first, rest = fanned_out(iter(range(100)), ends, list)

    assert first == 0 or isinstance(first, ZeroDivisionError)
    assert rest == list(range(100))


def test_the_source_is_read_no_further_once_nobody_wants_more() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    assert fanned_out(source(), next, next) == [0, 0]
    assert len(read) < 10


def test_the_source_is_a_few_items_ahead_of_the_slowest_consumer_and_no_further() -> None:
    read = 0
    most_ahead = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(1, 101):
            read = number
            yield number

    def slow(items: Iterator[int]) -> None:
        nonlocal most_ahead
        for item in items:
            most_ahead = max(most_ahead, read - item)

    fanned_out(source(), slow, list)
    assert most_ahead <= 4


def test_what_the_source_raises_each_consumer_raises_also_in_a_thread_of_its_own() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("no")

    def in_a_thread(items: Iterator[int]) -> list[object]:
        found: list[object] = []

        def take() -> None:
            try:
                found.extend(items)
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return found

    first, second = fanned_out(source(), list, in_a_thread)
    assert isinstance(first, OSError)
    assert isinstance(second, list)
    assert [str(each) for each in second] == ["1", "no"]


class Killed(BaseException):
    """The process ends here."""


def test_a_consumer_that_is_killed_kills_the_whole() -> None:
    def killed(_items: Iterator[int]) -> None:
        raise Killed

    with pytest.raises(Killed):
        fanned_out(range(10), killed, list)
