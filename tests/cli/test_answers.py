"""Answers: numbers as people write them, and values in their types for programs."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cli.answers import Value, print_answer, values_of, written
from exporter.store import Column, Type

# A column's type, a value as a store gives it, the value in JSON, and as it is written in a table and in CSV.
VALUES: list[tuple[Type, str | None, Value, str]] = [
    ("integer", "201", 201, "201"),
    ("integer", "9223372036854775807", 9_223_372_036_854_775_807, "9223372036854775807"),
    ("number", "201.0", 201, "201"),
    ("number", "2.8203908E7", 28_203_908, "28203908"),
    ("number", "-0.25", -0.25, "-0.25"),
    ("number", "1.5E-7", 1.5e-7, "0.00000015"),
    ("number", "9223372036854775807", 9_223_372_036_854_775_807, "9223372036854775807"),
    ("number", "NaN", "NaN", "NaN"),
    ("number", "Infinity", "Infinity", "Infinity"),
    ("number", "", "", ""),
    ("number", None, None, ""),
    ("boolean", "true", True, "true"),
    ("boolean", "false", False, "false"),
    ("text", "201.0", "201.0", "201.0"),
    (
        "timestamp",
        "2026-11-20 10:00:00.000000000",
        "2026-11-20 10:00:00.000000000",
        "2026-11-20 10:00:00.000000000",
    ),
]


@pytest.mark.parametrize(("kind", "text", "value", "shown"), VALUES)
def test_values_have_their_columns_types(kind: Type, text: str | None, value: Value, shown: str) -> None:
    (found,) = values_of([Column("a", kind)], [text])

    assert (found, type(found)) == (value, type(value))
    assert written(found) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_same_after_it_was_written(number: float) -> None:
    (value,) = values_of([Column("a", "number")], [repr(number)])

    assert math.isclose(float(written(value)), number, rel_tol=1e-15)
    assert "e" not in written(value).lower()


def test_csv_and_json_are_read_by_others(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[list[Value]] = [[1, "a\rb", None], [2.5, '"', True]]
    print_answer(["n", "text", "b"], rows, csv=True, json=False)
    assert list(csv.reader(io.StringIO(capsys.readouterr().out, newline=""))) == [
        ["n", "text", "b"],
        ["1", "a\rb", ""],
        ["2.5", '"', "true"],
    ]
    print_answer(["n", "text", "b"], rows, csv=False, json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [list(json.loads(line).values()) for line in lines] == rows
    with pytest.raises(typer.BadParameter, match="exclude each other"):
        print_answer([], [], csv=True, json=True)
