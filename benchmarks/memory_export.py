"""Whether the export's memory grows with the day: its peak for a million rows and for ten million.

Runs only when it is named, and takes minutes.
"""

from benchmarks import export

ROWS = {"1m": 1_008_000, "10m": 10_080_000}


def run() -> dict[str, float]:
    """Measure.

    Returns:
        For each format the peak of memory over that of the imports in MiB (`..._peak_over_base_mib_1m` and
        `_10m`), and how many times the first the second is (`..._peak_growth_1m_10m`).
    """
    numbers: dict[str, float] = {}
    with export.servers() as environment:
        for way in ("csv", "parquet"):
            for name, rows in ROWS.items():
                peak = export.measured(way, rows, environment)["peak"]
                numbers[f"{way}_peak_over_base_mib_{name}"] = peak
            first, second = (numbers[f"{way}_peak_over_base_mib_{name}"] for name in ROWS)
            numbers[f"{way}_peak_growth_1m_10m"] = second / first
    return numbers
