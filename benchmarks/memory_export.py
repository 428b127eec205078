"""Whether the export's memory grows with the day: its peak for a million rows and for ten million.

Runs only when it is named, and takes some ten minutes. `python -m benchmarks.memory_export --rows 3000000`
compares another number of rows with a tenth of it.
"""

import argparse
import json

from benchmarks import export

MOST_ROWS = 10_080_000


def run() -> dict[str, float]:
    """Measure.

    Returns:
        For each format the peak of memory over that of the imports in MiB (`..._peak_over_base_mib_1m` and
        `_10m`), and how many times the first the second is (`..._peak_growth_1m_10m`).
    """
    numbers: dict[str, float] = {}
    for way, (first, second) in peaks(MOST_ROWS).items():
        numbers[f"{way}_peak_over_base_mib_1m"] = first
        numbers[f"{way}_peak_over_base_mib_10m"] = second
        numbers[f"{way}_peak_growth_1m_10m"] = second / first
    return numbers


def peaks(rows: int) -> dict[str, tuple[float, float]]:
    """Return each format's peak of memory over the imports, in MiB, for a tenth of the rows and for all."""
    with export.servers() as environment:
        return {
            way: (
                export.measured(way, rows // 14_400 * 1_440, environment)["peak"],
                export.measured(way, rows // 14_400 * 14_400, environment)["peak"],
            )
            for way in ("csv", "parquet")
        }


def main() -> None:
    """Measure with another number of rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_export", description=__doc__)
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="the larger number of rows")
    for way, (first, second) in peaks(parser.parse_args().rows).items():
        print(way, json.dumps({"tenth": first, "all": second, "growth": second / first}))


if __name__ == "__main__":
    main()
