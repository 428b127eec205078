"""Charts show their numbers: read back from the paths, each value is where the scale puts it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.usage.charts import HEIGHT, WIDTH, curves, labels, linear, logarithmic, stacked_bars

COUNTS = st.lists(
    st.tuples(st.integers(0, 10**7), st.integers(0, 10**5), st.integers(0, 3)), min_size=1, max_size=90
)
VALUES = st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=90)
MOVE = re.compile(r"([MLlhHvVz])(-?[\d.]+)?(?: (-?[\d.]+))?")


def heights(path: str) -> list[int]:
    """Return the height of each step of an area."""
    found = []
    y = HEIGHT
    for command, number, _ in MOVE.findall(path)[1:]:
        if command == "v":
            y += int(number)
        elif command == "h":
            assert int(number) == WIDTH
            found.append(HEIGHT - y)
    return found


def points(path: str) -> dict[int, int]:
    """Return the height of each part of a line."""
    found = {}
    x = y = 0
    for command, first, second in MOVE.findall(path):
        if command == "M":
            x, y = int(first), int(second)
        elif command == "l":
            x, y = x + int(first), y + int(second)
        else:
            assert (command, first) == ("h", "6"), "a value alone is a short line"
            x += 3
        found[x // WIDTH] = HEIGHT - y
    return found


@given(COUNTS)
def test_bars_are_as_high_as_their_counts(counts: list[tuple[int, int, int]]) -> None:
    series = {name: [each[place] for each in counts] for place, name in enumerate(("ok", "client", "failed"))}

    drawing = stacked_bars(series, str)

    scale = linear(max(map(sum, counts)), 1)
    shapes = {shape.name: heights(shape.path) for shape in drawing.shapes}
    assert list(shapes) == [name for name in ("failed", "client", "ok") if any(series[name])]
    assert drawing.width == WIDTH * len(counts)
    for place, name in enumerate(("ok", "client", "failed")):
        for part, found in enumerate(shapes.get(name, [])):
            below = sum(counts[part][: place + 1])
            # What is too small to be seen is one unit high for each series.
            assert scale.height(below) <= found <= scale.height(below) + place + 1
            assert (found == 0) == (below == 0)


@given(VALUES)
def test_lines_go_through_their_values_and_have_gaps(values: list[float | None]) -> None:
    scale = linear(max((value or 0 for value in values), default=0) or 1)

    drawing = curves({"failed": values}, scale, str)

    expected = {part: scale.height(value) for part, value in enumerate(values) if value is not None}
    found = points(drawing.shapes[0].path) if drawing.shapes else {}
    assert found == expected
    starts = sum(1 for before, value in pairwise([None, *values]) if before is None and value is not None)
    assert sum(shape.path.count("M") for shape in drawing.shapes) == starts


@given(st.floats(1e-6, 1e12), st.sampled_from([0, 1]))
def test_a_linear_scale_has_few_round_values_and_holds_the_largest(largest: float, step: int) -> None:
    values = linear(largest, step).values

    assert values[0] == 0
    assert values[-1] >= largest * (1 - 1e-6)
    assert 2 <= len(values) <= 6
    if step:
        assert all(value == int(value) for value in values)


@given(st.floats(1e-3, 1e6), st.floats(1, 1e6))
def test_a_logarithmic_scale_holds_all_values(smallest: float, factor: float) -> None:
    scale = logarithmic(smallest, smallest * factor)

    assert scale.values[0] <= smallest * (1 + 1e-6)
    assert scale.values[-1] >= smallest * factor * (1 - 1e-6)
    assert list(scale.values) == sorted(set(scale.values))
    assert len(scale.values) >= 2
    assert 0 <= scale.height(smallest) <= scale.height(smallest * factor) <= HEIGHT


@pytest.mark.parametrize(("parts", "shown"), [(1, 1), (7, 7), (24, 6), (28, 7), (30, 6), (90, 7)])
def test_a_few_parts_have_a_label_below_their_middle(parts: int, shown: int) -> None:
    found = labels([str(part) for part in range(parts)])

    assert len(found) == shown
    for mark in found:
        assert mark.place == pytest.approx((int(mark.text) + 0.5) * 100 / parts, abs=0.1)
