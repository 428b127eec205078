"""How pages are written: decisions with a status, twelve terms, a section per version, plain English."""

import json
import re
from pathlib import Path

import pytest

from tests.test_docs import COMMANDS, DOCS, ROOT, WRITTEN_BY_HAND, blocks, named, section

DECISIONS = sorted(page for page in (DOCS / "decisions").glob("*.md") if page.name != "index.md")
# Words that make a reader stop: who does what is missing, or a plainer word says it.
STOPS = r"\b(there is no|is none|is no|of its own|anew|mend(s|ed)?|whoever|by itself|gone on with)\b"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_each_decision_has_a_status_and_is_marked_if_another_replaced_it(page: Path) -> None:
    parts = re.split(r"(?m)^## .+\n", page.read_text())[1:]
    status = r"Status: (accepted, 20\d\d-\d\d-\d\d|superseded by \[[^\]]+\]\([\w.-]*#[\w-]+\))\n\n\S"

    assert parts
    assert [part for part in parts if not re.match(status, part)] == []


def test_the_glossary_has_twelve_terms_in_their_order() -> None:
    rows = re.findall(r"(?m)^\| ([a-z][a-z-]*) \| \S", (DOCS / "reference" / "glossary.md").read_text())
    terms = [row for row in rows if row != "term"]

    assert (len(terms), terms) == (12, sorted(terms))


def test_the_changelog_has_a_section_for_each_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *versions = re.findall(r"(?m)^## (.+)$", text)
    kinds = set(re.findall(r"(?m)^### (.+)$", text))

    assert first == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - 20\d\d-\d\d-\d\d", version) for version in versions)
    assert versions == sorted(
        versions, key=lambda each: [*map(int, each.split()[0].split("."))], reverse=True
    )
    assert kinds == {"Added", "Changed", "Fixed", "Removed", "What you have to change"}


def test_the_last_line_of_the_demo_is_shown_as_it_is() -> None:
    shown = [text for _, text in blocks(DOCS / "how-to" / "try-your-access-log.md", "text") if text[0] == "{"]

    assert list(json.loads(shown[0])) == [
        name
        for name in re.findall(r"(?m)^\| `(\w+)`", section(COMMANDS, "The demo's last line"))
        if name in named(section(COMMANDS, "The demo's last line"))
    ]


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_in_plain_english(page: Path) -> None:
    prose = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text())

    assert [match[0] for match in re.finditer(STOPS, prose, re.IGNORECASE)] == []


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_that_no_test_runs_can_be_read(page: Path) -> None:
    for number, (_, text) in enumerate(blocks(page, "py")):
        compile(text, f"{page.name}, block {number}", "exec")
