"""What the emitter gives to the tests of those who use it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tagline import Emitter, add
from tagline.testing import capture

from tests.emitter.lines import Lines
from tests.emitter.pythons import EMITTER


def test_records_of_all_emitters_are_captured_and_nothing_is_written(
    emitter: Emitter, lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    to_stdout = Emitter(type="order")
    with capture() as records:
        with emitter.collect():
            add(items=3)
        assert records[0].fields["items"] == 3  # at once
        to_stdout.emit({"n": 1})
    to_stdout.emit({"n": 2})

    assert [record.type for record in records] == ["api_request", "order"]
    assert lines.writes == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_captures_nest() -> None:
    with capture() as outer:
        Emitter().emit({"where": "outer"})
        with capture() as inner:
            Emitter().emit({"where": "inner"})

    assert [record.fields["where"] for record in outer + inner] == ["outer", "inner"]


def test_a_capture_has_what_a_switched_off_emitter_would_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGLINE_DISABLED", "1")
    emitter = Emitter()
    with capture() as records:
        emitter.emit({"n": 1})

    assert records[0].fields == {"n": 1}


def test_what_would_be_swallowed_is_raised_in_a_strict_capture_only() -> None:
    emitter = Emitter()
    handler: Any = emitter.handler(fields=lambda event: event["missing"])(lambda _event, _context: 7)

    with pytest.raises(KeyError, match="missing"), capture():
        handler({}, None)
    with capture(strict=False) as records:
        assert handler({}, None) == 7

    assert (len(records), emitter.errors) == (1, 2)


USERS_TEST = """
from tagline import Emitter, add

emitter = Emitter()


@emitter.handler
def handler(event, context):
    add(items=3)


def test_an_order_is_counted(tagline_records):
    handler({}, None)
    assert [record.fields["items"] for record in tagline_records] == [3]


def test_another_test_begins_without_records(tagline_records):
    assert tagline_records == []
"""


def test_the_fixture_is_there_for_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(USERS_TEST)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tagline.pytest_plugin"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(EMITTER)},
    )

    assert "2 passed" in done.stdout
