"""What benchmarks compare does the same work: each way in small, read back. Its time decides nothing."""

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from benchmarks import accounts, compact, export, soak
from benchmarks import zip as zips
from benchmarks.soak import Line

# What only `make bench` installs, by the way that needs it.
NEEDS = {
    "stream_zip": "stream_zip",
    "zipstream_ng": "zipstream",
    "wrangler_csv": "awswrangler",
    "wrangler_parquet": "awswrangler",
}


def needed(way: str) -> None:
    if way in NEEDS:
        pytest.importorskip(NEEDS[way], reason=f"{NEEDS[way]} is not installed: make bench installs it")


@pytest.mark.parametrize("way", zips.WAYS)
def test_each_way_that_is_compared_makes_a_zip_of_all_files(way: str) -> None:
    needed(way)
    with zips.server({"csv": 2, "gz": 2}) as url:
        assert zips.measured(way, url, 2)["zip_bytes"] > 0
        zips.check(url, way, 2)


@pytest.mark.parametrize("way", export.WAYS)
def test_each_way_that_is_compared_exports_all_rows(way: str) -> None:
    needed(way)
    with export.servers() as environment:
        assert export.measured(way, 1_440, environment)["seconds"] > 0


def test_the_page_has_what_accounting_costs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "reconcile.md").read_text()

    assert "\n".join(accounts.costs()) in page


def test_a_short_soak_loses_nothing_doubles_nothing_and_counts_every_day_right() -> None:
    numbers = soak.run(minutes=0.03, seed=1)

    assert numbers["wrong"] == 0
    assert numbers["midnights"] >= 1
    assert numbers["kills"] >= 1
    assert sum(count for name, count in numbers.items() if name.startswith("faults_")) >= 5
    assert numbers["rows"] + numbers["quarantined"] > 100
    assert numbers["meters"] > 1


MONDAY, TUESDAY = date(2026, 11, 30), date(2026, 12, 1)


def line(
    identity: str,
    number: int | None = None,
    day: date = MONDAY,
    *,
    rejected: bool = False,
    arrives: bool = True,
    meter: str = "",
) -> Line:
    place = None if number is None else ("source", number)
    return Line("group", day, identity, place, rejected, arrives, meter)


@pytest.mark.parametrize(
    ("in_table", "in_quarantine", "what", "identity"),
    [
        (["a"], [], "lost", "rejected"),
        ([], ["rejected"], "lost", "a"),
        (["a", "a"], ["rejected"], "doubled", "a"),
        (["a"], ["rejected", "rejected"], "doubled", "rejected"),
        (["a"], ["a", "rejected"], "doubled", "a"),
        (["a"], ["a", "rejected"], "misplaced", "a"),
        (["a", "rejected"], [], "misplaced", "rejected"),
        (["a", "never delivered"], ["rejected"], "doubled", "never delivered"),
    ],
)
def test_a_soak_finds_what_is_lost_doubled_or_in_the_wrong_place(
    in_table: list[str], in_quarantine: list[str], what: str, identity: str
) -> None:
    lines = [line("a"), line("rejected", rejected=True), line("never delivered", arrives=False)]
    right = soak.differences(lines, Counter(["a"]), Counter(["rejected"]), Counter())
    wrong = soak.differences(lines, Counter(in_table), Counter(in_quarantine), Counter())

    assert not any(right.values())
    assert identity in wrong[what]


@pytest.mark.parametrize(
    ("meters", "lost", "doubled"), [(["1"], [], []), ([], ["1"], []), (["1", "1", "2"], [], ["1", "2"])]
)
def test_a_soak_finds_meters_that_are_lost_or_doubled(
    meters: list[str], lost: list[str], doubled: list[str]
) -> None:
    lines = [line("a", meter="1"), line("b", arrives=False, meter="2"), line("c")]

    found = soak.differences(lines, Counter("abc"), Counter(), Counter(meters))

    assert (found["meters_lost"], found["meters_doubled"]) == (lost, doubled)


def test_a_soak_expects_a_gap_on_the_day_of_the_next_number_and_a_repeated_number_once_a_day() -> None:
    lines = [
        line("before the first", 0, arrives=False),
        line("a", 1),
        line("a", 1),
        line("lost", 2, arrives=False),
        line("a", 1, TUESDAY),
        line("rejected", 3, TUESDAY, rejected=True),
        line("after the last", 4, TUESDAY, arrives=False),
        line("without a number"),
        line("without a number either"),
    ]

    assert soak.expected_days(lines, {MONDAY: 5}, {TUESDAY: 1}) == {
        MONDAY: {"emitted": 3, "delivered": 3, "quarantined": 0, "mentioned": 5},
        TUESDAY: {"emitted": 3, "delivered": 2, "quarantined": 2, "lost": 1},
    }


def test_the_lakes_day_is_exported_from_the_consumers_fragments() -> None:
    assert compact.measured(240, 60)["us_per_row"] > 0
