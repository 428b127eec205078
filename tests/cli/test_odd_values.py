"""Every option and argument of every command, with values that nobody expects: no traceback."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.errors import CommandError
from cli.main import app, problem_of, run
from cli.options import days_between
from cli.target import Target

ROOT = Path(__file__).resolve().parent.parent.parent
ODD = [
    *("", " ", "-", "--", "-1", "0", "1e400", "1e300", "nan", "inf", "-inf", "9" * 400, "0x10", "½", "٣"),
    *("[/x]", "[bold]a[/]", "[link=a]", ":smile:", "{table}", "{", "{0}", "%s", "%(x)s", "$(id)", "'", '"'),
    *("\\", "../../etc/passwd", "/dev/null", "~", "*", ".", "/", "..", "a" * 100_000, "(" * 5_000),
    *("\x1b[31m", "\x1b]0;x\x07", "\u202e", "\udcff", "\N{SMILING FACE WITH SUNGLASSES}", "line\nbreak"),
    *("return\rx", "tab\t", "1900-01-01", "9999-12-31", "0001-01-01", "2026-02-30", "2026-11-19T25:00"),
    *("9999-12-31T23:59:59-14:00", "0001-01-01T00:00+14:00", "null", "a=b", "=", "s3://x/y", "http://[::1"),
]
# What ends a command before it starts anything, for its other options: no pipeline runs in the folder.
BESIDE = {
    "query": {"sql": "SELECT 1"},
    "insights": {"question": "limit 1"},
    "filter test": {"pattern": "a", "file": "empty.log"},
    "feed": {"log": "empty.log"},
    "fault": {"kind": "none"},
    "quarantine show": {"key": "quarantine/x"},
    "replay": {"source": "quarantine"},
    "schema check": {"old": "schemas"},
    "demo": {"access_log": "nothing.log"},
    "up": {"template": "nothing.yml"},
}
COMMAND: Any = typer.main.get_command(app)


def leaves(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from leaves(below, *names, name)
    else:
        yield names, command


PARAMETERS = [
    pytest.param(names, command, parameter, id=f"{' '.join(names)} {parameter.name}")
    for names, command in leaves(COMMAND)
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]


def arguments(names: tuple[str, ...], command: Any, odd: Any, value: str) -> list[str]:
    """Return a command line with the value for one of its parameters."""
    options, others = [], []
    for each in command.params:
        given = value if each is odd else BESIDE.get(" ".join(names), {}).get(each.name)
        if given is None:
            continue
        if each.param_type_name == "argument":
            others.append(given)
        else:
            options.append(f"{each.opts[0]}={given}")
    return [*names, *options, "--", *others]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without what would lead to AWS."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    Path("empty.log").touch()


def ends_well(line: list[str]) -> bool:
    """Run a command; return whether it did what it was asked, or an error has a sentence and what to do."""
    try:
        COMMAND(line, standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - which ones are the command's is what is tested
        return all(problem_of(error) or ("",))
    return True


@pytest.mark.parametrize(("names", "command", "parameter"), PARAMETERS)
def test_an_odd_value_ends_in_a_sentence(names: tuple[str, ...], command: Any, parameter: Any) -> None:
    # Each makes a client of boto3, and all commands find their stack alike.
    values = ODD[::8] if parameter.name == "stack" and names != ("env",) else ODD

    lines = [arguments(names, command, parameter, value) for value in values]

    assert [line for line in lines if not ends_well(line)] == []


@pytest.mark.parametrize("value", [value for value in ODD if "[" in value or not value.isprintable()])
def test_what_a_person_typed_controls_no_terminal(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ([value, "x"], ["query", "a", value], ["up", f"--template=x{value}"], ["query", f"-{value}"]):
        with contextlib.suppress(SystemExit):
            run(line)

        printed = capsys.readouterr()
        assert all(each.isprintable() or each == "\n" for each in printed.out + printed.err)


def test_ctrl_c_while_the_command_is_imported_ends_it_quietly() -> None:
    program = """
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from tagline_pipeline import run
run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("first", "last", "problem"),
    [
        ("1900-01-01", None, "no record can be of 1900-01-01"),
        ("1970-01-01", "1969-12-31", "is before the first"),
        (None, "9999-12-31", "no record can be of 9999-12-31"),
        ("1970-01-01", "9999-12-31", "no record can be of 9999-12-31"),
        ("2016-01-01", "2026-11-30", "are 3,987 days"),
    ],
)
def test_days_on_which_no_record_can_be_are_refused(
    first: str | None, last: str | None, problem: str
) -> None:
    days = [None if text is None else datetime.fromisoformat(text) for text in (first, last)]

    with pytest.raises(CommandError, match=problem):
        days_between(Target(None, {}, {}), *days, one_by_one=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("line", ["--help", f"schema show {ROOT / 'schemas'}"])
def test_a_full_disk_ends_it_with_a_sentence(line: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tagline_pipeline", *line.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "No space left on device" in done.stderr
