"""Columns -> the bytes of a Parquet file. Pure."""

from __future__ import annotations

import io
from typing import Final

from consumers.rows.lake.content import Columns

MEDIA_TYPE: Final = "application/vnd.apache.parquet"


def pack(columns: Columns) -> bytes:
    """Return a file with columns: one row group, packed by zstd, with statistics of each column."""
    # Imported for a fragment alone: a function that writes none does not ship it.
    from arro3.core import Array, DataType, Table  # noqa: PLC0415 - see above
    from arro3.io import write_parquet  # noqa: PLC0415 - see above

    types = {
        "BIGINT": DataType.int64(),
        "BOOLEAN": DataType.bool(),
        "DOUBLE": DataType.float64(),
        "INTEGER": DataType.int32(),
        "TIMESTAMP": DataType.int64(),  # of which lists cannot be made directly
        "VARCHAR": DataType.string(),
    }
    arrays = [Array(values, types[type_]) for type_, values in columns.values()]
    for place, (type_, _) in enumerate(columns.values()):
        if type_ == "TIMESTAMP":
            arrays[place] = arrays[place].cast(DataType.timestamp("ms", tz="UTC"))
    file = io.BytesIO()
    table = Table.from_arrays(arrays, names=list(columns))
    # A dictionary takes longer to make than zstd takes without one, and its pages are larger for it.
    write_parquet(table, file, compression="zstd(1)", dictionary_enabled=False, skip_arrow_metadata=True)
    return file.getvalue()
