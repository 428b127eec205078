"""What benchmarks compare does the same work: each way in small, read back. Its time decides nothing."""

import pytest

from benchmarks import export
from benchmarks import zip as zips


@pytest.mark.parametrize("way", zips.WAYS)
def test_each_way_that_is_compared_makes_a_zip_of_all_files(way: str) -> None:
    with zips.server({"csv": 2, "gz": 2}) as url:
        assert zips.measured(way, url, 2)["zip_bytes"] > 0
        zips.check(url, way, 2)


@pytest.mark.parametrize("way", export.WAYS)
def test_each_way_that_is_compared_exports_all_rows(way: str) -> None:
    with export.servers() as environment:
        assert export.measured(way, 1_440, environment)["seconds"] > 0
