"""The curves of docs/reference/lake.md: measured here, drawn, and written over the pictures there.

Runs only when it is named, and takes minutes. It needs matplotlib and awswrangler.
"""

from pathlib import Path

from benchmarks import export
from benchmarks.curves import Curves, draw

PICTURES = Path(__file__).parents[1] / "docs" / "reference" / "pictures"
ROWS = (10_080, 30_240, 100_800, 302_400, 1_008_000)  # a multiple of 1,440 each
# A million rows take the others minutes, and that they grow is seen before.
MOST_ROWS_OF_OTHERS = 302_400
OURS = {"csv", "parquet"}
NAMES = {
    "csv": "csv.gz",
    "parquet": "parquet",
    "seed": "boto3, csv, StringIO, put_object",
    "wrangler_parquet": "awswrangler, parquet",
}


def run() -> dict[str, float]:
    """Measure, draw, and return what was measured."""
    cpu: Curves = {name: [] for name in NAMES.values()}
    memory: Curves = {name: [] for name in NAMES.values()}
    numbers: dict[str, float] = {}
    with export.servers() as environment:
        for rows in ROWS:
            for way, name in NAMES.items():
                if way not in OURS and rows > MOST_ROWS_OF_OTHERS:
                    continue
                measured = export.measured(way, rows, environment)
                cpu[name].append((rows, measured["cpu"]))
                memory[name].append((rows, measured["peak"]))
                numbers |= {f"{way}_{rows}_{what}": measured[what] for what in ("cpu", "peak")}
    draw(
        "export-cpu",
        cpu,
        "rows of the day",
        "processor time, s",
        x_scale="log",
        y_scale="log",
        folder=PICTURES,
    )
    draw(
        "export-memory",
        memory,
        "rows of the day",
        "peak over imports, MiB",
        x_scale="log",
        y_scale="log",
        folder=PICTURES,
    )
    return numbers
