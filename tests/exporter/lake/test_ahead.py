"""Items are made one ahead, in another thread."""

import threading
from collections.abc import Iterator

import pytest

from exporter.lake.ahead import ahead


def test_while_an_item_is_used_the_next_one_is_made_and_no_other() -> None:
    made: list[int] = []
    is_made = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            is_made[number].set()
            yield number

    for number in ahead(items()):
        if number < 3:
            assert is_made[number + 1].wait(60)
        assert made == list(range(min(number + 2, 4)))


def test_what_fails_ahead_fails_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no page")

    coming = ahead(items())

    assert next(coming) == 1
    with pytest.raises(OSError, match="no page"):
        next(coming)


def test_who_leaves_does_not_wait_for_what_is_on_its_way() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        asked.set()
        assert go_on.wait(60)
        yield 2

    coming = ahead(items())
    assert next(coming) == 1
    assert asked.wait(60)

    coming.close()  # type: ignore[attr-defined] # it is a generator; waiting here would be for ever

    go_on.set()
