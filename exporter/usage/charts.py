"""Charts as geometry: paths, ticks and labels that a template writes as SVG. Pure.

A chart's drawing is stretched to its width, so it has no text; ticks and labels are placed in percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Height of the drawing and width of each part of the series, in units of the SVG. The style sheet shows a
# drawing with at most 224 px: half a unit, by which a height is rounded, is less than a pixel.
HEIGHT, WIDTH = 120, 10
_MOST_TICKS = 5
_MOST_LABELS = 7
_NICE = (1, 2, 2.5, 5, 10)

Curve = Sequence[float | None]
Text = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """A path of a chart, with the name of its class in the style sheet."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A text beside a chart, placed in percent from the top or from the left."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a chart shows.

    Attributes:
        width: Its width in units of the SVG; the height is `HEIGHT`.
        shapes: The paths, the first one at the back.
        ticks: The values at its side, from the top.
    """

    width: int
    shapes: tuple[Shape, ...]
    ticks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """Which values are where.

    Attributes:
        values: The values that have a tick, in ascending order, from the bottom to the top.
        logarithmic: Whether equal distances are equal factors.
    """

    values: tuple[float, ...]
    logarithmic: bool = False

    def height(self, value: float) -> int:
        """Return how high a value is, in the drawing's units."""
        low, high = self.values[0], self.values[-1]
        if self.logarithmic:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return round(HEIGHT * (value - low) / (high - low))


def linear(largest: float, smallest_step: float = 0) -> Scale:
    """Return a scale from 0 with a few round values, whose last is the largest value or above.

    Args:
        largest: The largest value.
        smallest_step: The least distance of two values: 1 for counts.
    """
    rough = max(largest / (_MOST_TICKS - 1), smallest_step, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in _NICE if power * nice >= rough * (1 - 1e-9))
    if smallest_step:
        step = math.ceil(step / smallest_step) * smallest_step
    count = max(1, math.ceil(largest / step - 1e-9))
    return Scale(tuple(step * number for number in range(count + 1)))


def logarithmic(smallest: float, largest: float) -> Scale:
    """Return a scale of powers of ten, or of 1, 2 and 5 times these where that gives few enough values."""
    first, last = math.floor(math.log10(smallest)), math.ceil(math.log10(largest) + 1e-9)
    fine = [10.0**power * factor for power in range(first, last) for factor in (1, 2, 5)] + [10.0**last]
    below = max(value for value in fine if value <= smallest * (1 + 1e-9))
    above = min(value for value in fine if value >= largest * (1 - 1e-9) and value > below)
    fine = [value for value in fine if below <= value <= above]
    if len(fine) <= _MOST_TICKS + 1:
        return Scale(tuple(fine), logarithmic=True)
    return Scale(tuple(10.0**power for power in range(first, max(last, first + 1) + 1)), logarithmic=True)


def stacked_bars(series: Mapping[str, Sequence[int]], text: Text) -> Drawing:
    """Return bars on top of each other, the first series at the bottom.

    A shape is as high as the sum of its series and of those below it, and lies behind these. Its bars touch:
    the style sheet draws the gaps.

    Args:
        series: Counts by the name of their class.
        text: Writes a value of the scale.
    """
    count = len(next(iter(series.values())))
    sums = [0] * count
    tops = [0] * count
    shapes: list[Shape] = []
    totals = [sum(values[part] for values in series.values()) for part in range(count)]
    scale = linear(max(totals, default=0), 1)
    for name, values in series.items():
        sums = [below + value for below, value in zip(sums, values, strict=True)]
        # A few among thousands are seen: a bar is at least one unit higher than those in front of it.
        tops = [
            max(scale.height(total), top + 1) if value else top
            for total, top, value in zip(sums, tops, values, strict=True)
        ]
        if any(values):
            shapes.insert(0, Shape(name, _steps(tops)))
    return Drawing(WIDTH * count, tuple(shapes), _ticks(scale, text))


def _steps(heights: Sequence[int]) -> str:
    """Return the area under steps, in relative moves: these are short, and pack well."""
    moves = [f"v{before - after}h{WIDTH}" for before, after in pairwise([0, *heights])]
    return f"M0 {HEIGHT}{''.join(moves)}V{HEIGHT}z"


def curves(series: Mapping[str, Curve], scale: Scale, text: Text) -> Drawing:
    """Return lines with a gap where a value is missing; a value between two gaps is a short line.

    Args:
        series: Curve by the name of their class.
        scale: Where they are.
        text: Writes a value of the scale.
    """
    count = len(next(iter(series.values())))
    shapes = [Shape(name, _line(values, scale)) for name, values in series.items()]
    shown = tuple(shape for shape in shapes if shape.path)
    return Drawing(WIDTH * count, shown, _ticks(scale, text))


def _line(values: Curve, scale: Scale) -> str:
    path = []
    last: int | None = None
    for part, value in enumerate(values):
        if value is None:
            last = None
            continue
        x, y = WIDTH * part + WIDTH // 2, HEIGHT - scale.height(value)
        alone = last is None and (part + 1 == len(values) or values[part + 1] is None)
        if alone:
            path.append(f"M{x - 3} {y}h6")
        elif last is None:
            path.append(f"M{x} {y}")
        else:
            path.append(f"l{WIDTH} {y - last}")
        last = y
    return "".join(path)


def _ticks(scale: Scale, text: Text) -> tuple[Mark, ...]:
    return tuple(
        Mark(round(100 - scale.height(value) * 100 / HEIGHT, 1), text(value)) for value in scale.values
    )


def labels(texts: Sequence[str]) -> tuple[Mark, ...]:
    """Return a few of the parts' texts, placed below their parts: each second, third and so on.

    Args:
        texts: A text for each part.
    """
    every = math.ceil(len(texts) / _MOST_LABELS)
    chosen = range(every // 2, len(texts), every)
    return tuple(Mark(round((part + 0.5) * 100 / len(texts), 1), texts[part]) for part in chosen)
