"""`tagline schema`, as a person runs it in a repository."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.errors import CommandError
from cli.main import app

SCHEMA = """
revision = 4
[dimensions.client]
values = ["acme"]
pii = true
[measures]
status = "DOUBLE"
item_count = "BIGINT"
"""

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs the command in a folder with a schema."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.toml").write_text(SCHEMA)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["schema", *arguments])


def change(old: str, new: str) -> None:
    path = Path("schemas/order.toml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_is_declared_is_shown_with_what_tells_of_a_person_and_how_much_there_is_left(run: Run) -> None:
    shown = run("show")

    assert shown.exit_code == 0
    lines = {line.split("│")[1].strip(): line for line in shown.output.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in lines["client"].split("│")][3:7] == [
        "dimension",
        "300 bytes",
        "acme; others as",
        "yes",
    ]
    assert [cell.strip() for cell in lines["item_count"].split("│")][3:7] == ["BIGINT", "-1", "", ""]
    assert "11 of 1,024 measures, and those that are not declared; 4 of 128 dimensions" in shown.output


def test_a_table_of_which_everything_is_declared_is_said_to_be_bounded(run: Run) -> None:
    Path("schemas/any.toml").write_text('type = "*"\nrevision = 1\nundeclared = "extra"')
    change("revision = 4", 'revision = 4\nundeclared = "extra"')

    assert "11 of 1,024 measures; 4 of 128 dimensions" in run("show").output


@pytest.mark.parametrize(
    ("old", "new", "said", "status"),
    [
        ("", "", "Nothing differs.", 0),
        ("[measures]", "[measures]\nsize = 'DOUBLE'", "added, DOUBLE", 0),
        ('"DOUBLE"', '"BIGINT"', "declare a new name", 1),
        ("[measures]", "[measures]\npet_count = 'BIGINT'", "set revision to 5", 1),
    ],
)
def test_a_change_is_told_by_a_table_and_the_exit_status(
    run: Run, old: str, new: str, said: str, status: int
) -> None:
    shutil.copytree("schemas", "deployed")
    if old:
        change(old, new)
    checked = run("check", "deployed")

    # A narrow terminal breaks a cell into lines.
    rows = [line.split("│") for line in checked.output.splitlines() if line.startswith("│")]
    columns = [" ".join(cell.strip() for cell in column) for column in zip(*rows, strict=True)]
    assert (checked.exit_code, any(said in text for text in [checked.output, *columns])) == (status, True)


def git(*arguments: str) -> None:
    name = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *name, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on this machine")
@pytest.mark.parametrize("folder", ["schemas", "deep/er/schemas"])
def test_what_is_deployed_may_be_a_commit(run: Run, folder: str) -> None:
    git("init", "-b", "main")
    git("commit", "--allow-empty", "-m", "before")
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    Path("schemas").rename(folder)
    Path(folder, "inner").mkdir()
    Path(folder, "inner", "no.toml").write_text("no schema")
    git("add", ".")
    git("commit", "-m", "after")
    path = Path(folder, "order.toml")
    path.write_text(path.read_text().replace("DOUBLE", "VARCHAR"))

    assert run("check", "HEAD", folder).exit_code == 1
    added = run("check", "HEAD~1", folder)
    assert (added.exit_code, "added" in added.output) == (0, True)
    for unknown in ("nobody", "--output=x"):
        checked = run("check", "--", unknown, folder)
        assert isinstance(checked.exception, CommandError)
        assert str(checked.exception) == f"{unknown} is neither a folder nor a commit"
    assert not Path("x").exists()


def test_what_is_wrong_is_said_with_what_to_do(run: Run) -> None:
    for arguments in (["show", "nowhere"], ["check", "schemas", "nowhere"]):
        assert str(run(*arguments).exception) == "nowhere is not a folder"
    change('"DOUBLE"', '"INT"')
    assert "order.toml: measures.status.type is 'INT'" in str(run("show").exception)
