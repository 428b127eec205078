"""What benchmarks compare does the same work: each way in small, read back. Its time decides nothing."""

from pathlib import Path

import pytest

from benchmarks import accounts, export
from benchmarks import zip as zips

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
