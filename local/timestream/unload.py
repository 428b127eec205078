"""UNLOAD: reads the statement, and writes a result as objects with a manifest and a metadata object.

https://docs.aws.amazon.com/timestream/latest/developerguide/export-unload-concepts.html
"""

import csv
import gzip
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlglot.tokenizer_core import Token, TokenType

from local.timestream.errors import ServiceError, invalid
from local.timestream.kinds import Array, Datum, Kind, Row, Series, Type, column_type

# https://docs.aws.amazon.com/timestream/latest/developerguide/export-unload-limits.html
MAX_PARTITIONS = 100
MIN_FILE_BYTES, MAX_FILE_BYTES = 16 * 1024**2, 78 * 1024**3

_SIZE = re.compile(r"([0-9]+)(MB|GB)", re.ASCII)
_SIZE_BYTES = {"MB": 1024**2, "GB": 1024**3}
_FORMATS = {
    "format": ("CSV", "PARQUET"),
    "compression": ("GZIP", "NONE"),
    "encryption": ("SSE_S3", "SSE_KMS"),
}
_TEXTS = {"kms_key", "field_delimiter", "escaped_by", "include_header", "max_file_size"}
# Trino's name for the folder of null.
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class Put(Protocol):
    """Writes an object into S3."""

    def __call__(self, bucket: str, key: str, body: bytes) -> None:
        """Write it.

        Args:
            bucket: The bucket's name.
            key: The object's.
            body: Its content.

        Raises:
            OSError: It was not written.
        """


@dataclass(frozen=True, slots=True)
class Unload:
    """An UNLOAD statement without its SELECT.

    Args:
        bucket: Where to.
        folder: The keys' beginning, without a slash at its end; may be empty.
        partitioned_by: The names of the result's last columns.
        parquet: Parquet, not CSV.
        compressed: With gzip.
        delimiter: Between a CSV's fields.
        escape: Before a quote in a CSV's field.
        header: Whether a CSV begins with the columns' names.
        file_bytes: What a file has at most, before compression.
    """

    bucket: str
    folder: str
    partitioned_by: tuple[str, ...] = ()
    parquet: bool = False
    compressed: bool = True
    delimiter: str = ","
    escape: str = "\\"
    header: bool = False
    file_bytes: int = MAX_FILE_BYTES


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a result, for a folder of its own.

    Args:
        values: Of the columns that it is partitioned by, as printed.
        rows: How many rows it has.
        printed: Gives the rows as the service prints them, without those columns.
        parquet: Gives the rows as Parquet files of at most so many bytes, compressed or not, and how many
            rows each has.
    """

    values: tuple[str | None, ...]
    rows: int
    printed: Callable[[], Iterable[Sequence[Datum]]]
    parquet: Callable[[int, bool], Iterable[tuple[Path, int]]]


def read_unload(tokens: Sequence[Token]) -> tuple[list[Token], Unload]:
    """Read an UNLOAD statement.

    Args:
        tokens: Its words.

    Returns:
        The words of the SELECT in its parentheses, and the rest.

    Raises:
        ServiceError: ValidationException.
    """
    end = _closing(tokens, 1)
    rest = list(tokens[end + 1 :])
    if len(rest) < 2 or rest[0].text.upper() != "TO" or rest[1].token_type is not TokenType.STRING:  # noqa: PLR2004 TO and its text
        raise invalid("UNLOAD needs TO and a location: UNLOAD (SELECT ...) TO 's3://bucket/folder'")
    location = re.fullmatch(r"s3://([^/]+)/?(.*)", rest[1].text)
    if location is None:
        raise invalid(f"UNLOAD location {rest[1].text} is not valid. It must begin with s3:// and a bucket.")
    unload = Unload(location[1], location[2].strip("/"), **_options(rest[2:]))
    return list(tokens[2:end]), unload


def _closing(tokens: Sequence[Token], start: int) -> int:
    depth = 0
    for place, token in enumerate(tokens[start:], start):
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if depth == 0 and place > start:
            return place
        if depth == 0:
            break
    raise invalid("UNLOAD needs a SELECT in parentheses")


def _options(tokens: Sequence[Token]) -> dict[str, Any]:
    given = _pairs(tokens)
    for name in given:
        if name not in {*_FORMATS, *_TEXTS, "partitioned_by"}:
            raise invalid(f"UNLOAD option {name} is not supported.")
    options: dict[str, Any] = {"partitioned_by": tuple(given.get("partitioned_by", ()))}
    chosen = {name: _one(given, name, choices[0]).upper() for name, choices in _FORMATS.items()}
    for name, choices in _FORMATS.items():
        if chosen[name] not in choices:
            raise invalid(f"UNLOAD option {name} is {chosen[name]}. It must be one of {', '.join(choices)}.")
    options["parquet"] = chosen["format"] == "PARQUET"
    options["compressed"] = chosen["compression"] == "GZIP"
    options["delimiter"] = _one(given, "field_delimiter", ",").replace("\\t", "\t")
    options["escape"] = _one(given, "escaped_by", "\\")
    if not all(len(c) == 1 and c.isascii() for c in (options["delimiter"], options["escape"])):
        raise invalid("UNLOAD options field_delimiter and escaped_by must be one ASCII character each.")
    if len({options["delimiter"], options["escape"], '"'}) != 3:  # noqa: PLR2004 they and the quote
        raise invalid("UNLOAD options field_delimiter and escaped_by must differ, and be no quote.")
    header = _one(given, "include_header", "false").lower()
    if header not in {"true", "false"}:
        raise invalid(f"UNLOAD option include_header is {header}. It must be true or false.")
    options["header"] = header == "true"
    size = _SIZE.fullmatch(_one(given, "max_file_size", "78GB").upper())
    options["file_bytes"] = int(size[1]) * _SIZE_BYTES[size[2]] if size else 0
    if not MIN_FILE_BYTES <= options["file_bytes"] <= MAX_FILE_BYTES:
        raise invalid("UNLOAD option max_file_size must be between 16MB and 78GB.")
    return options


def _one(given: Mapping[str, list[str]], name: str, default: str) -> str:
    values = given.get(name, [default])
    if len(values) != 1:
        raise invalid(f"UNLOAD option {name} takes one text.")
    return values[0]


def _pairs(tokens: Sequence[Token]) -> dict[str, list[str]]:
    """Read ``WITH (name = 'text', name = ARRAY['text', ...])``."""
    given: dict[str, list[str]] = {}
    if not tokens:
        return given
    ends = tokens[0].text.upper(), tokens[1:2], tokens[-1].token_type
    if (
        ends[0] != "WITH"
        or ends[1][0].token_type is not TokenType.L_PAREN
        or ends[2] is not TokenType.R_PAREN
    ):
        raise invalid("UNLOAD options stand in WITH (name = 'value', ...)")
    words = list(tokens[2:-1])
    while words:
        name, equals, value = (*words[:3], None, None, None)[:3]
        if name is None or equals is None or value is None or equals.token_type is not TokenType.EQ:
            raise invalid("UNLOAD options stand in WITH (name = 'value', ...)")
        words = words[3:]
        values = [value.text]
        if value.text.upper() == "ARRAY":
            end = next((n for n, w in enumerate(words) if w.token_type is TokenType.R_BRACKET), 0)
            values = [word.text for word in words[1:end] if word.token_type is not TokenType.COMMA]
            words = words[end + 1 :]
        given[name.text.lower()] = values
        if words and words[0].token_type is not TokenType.COMMA:
            raise invalid(f"UNLOAD option {name.text} is followed by {words[0].text}.")
        words = words[1:]
    return given


def check_columns(unload: Unload, columns: Sequence[tuple[str, Kind]]) -> None:
    """See that a result can be unloaded as the statement says.

    Args:
        unload: The statement.
        columns: Names and types of the result's columns.

    Raises:
        ServiceError: ValidationException.
    """
    # https://docs.aws.amazon.com/timestream/latest/developerguide/supported-sql-constructs.UNLOAD.html
    for name, kind in columns:
        if kind in {Type.TIME, Type.UNKNOWN}:
            raise invalid(f"UNLOAD does not support the type {kind.value.lower()} of column {name}.")
    names = [name for name, _ in columns]
    if len(set(names)) != len(names):
        raise invalid("UNLOAD needs columns whose names differ.")
    last = len(names) - len(unload.partitioned_by)
    # https://docs.aws.amazon.com/timestream/latest/developerguide/export-unload-best-practices.html
    if last < 1 or tuple(names[last:]) != unload.partitioned_by:
        raise invalid("The columns of partitioned_by must be the last ones of the SELECT, in the same order.")


def write_objects(
    unload: Unload, query_id: str, columns: Sequence[tuple[str, Kind]], parts: Sequence[Partition], put: Put
) -> tuple[int, str, str]:
    """Write a result's objects: the manifest comes last, so that it is there only if all is.

    Args:
        unload: The statement.
        query_id: Begins the objects' names.
        columns: Names and types of the result's columns.
        parts: The result.
        put: Writes an object.

    Returns:
        How many rows there are, and the addresses of the metadata and of the manifest.

    Raises:
        ServiceError: ValidationException: an object cannot be written, or a partition cannot be named.
    """
    if len(parts) > MAX_PARTITIONS:
        raise invalid(f"UNLOAD has {len(parts)} partitions. The limit is {MAX_PARTITIONS}.")
    root = f"{unload.folder}/" if unload.folder else ""
    names = [name for name, _ in columns[: len(columns) - len(unload.partitioned_by)]]
    kinds = [kind for _, kind in columns[: len(names)]]
    results, lengths = [], []
    try:
        for part in parts:
            folder = root + "results/" + "".join(_folders(unload.partitioned_by, part.values))
            for body, length, rows in _files(unload, names, kinds, part):
                ending = "parquet" if unload.parquet else "gz" if unload.compressed else "csv"
                key = f"{folder}{query_id}_{uuid.uuid4()}.{ending}"
                put(unload.bucket, key, body)
                about = {"content_length_in_bytes": length, "row_count": rows}
                lengths.append(length)
                results.append({"url": f"s3://{unload.bucket}/{key}", "file_metadata": about})
        total = sum(part.rows for part in parts)
        metadata = {
            "ColumnInfo": [{"Name": name, "Type": column_type(kind)} for name, kind in columns],
            "Author": {"Name": "Amazon Timestream", "MetadataFileVersion": "1.0"},
        }
        manifest = {
            "result_files": results,
            "query_metadata": {
                "content_length_in_bytes": sum(lengths),
                "total_row_count": total,
                "result_format": "PARQUET" if unload.parquet else "CSV",
                "result_version": "Amazon Timestream version 1.0.0",
            },
            "author": {"name": "Amazon Timestream", "manifest_file_version": "1.0"},
        }
        addresses = []
        for name, content in (("metadata", metadata), ("manifest", manifest)):
            key = f"{root}{query_id}_{name}.json"
            put(unload.bucket, key, json.dumps(content).encode())
            addresses.append(f"s3://{unload.bucket}/{key}")
    except OSError as error:
        raise ServiceError(
            "ValidationException", f"UNLOAD cannot write to {unload.bucket}: {error}"
        ) from None
    return total, addresses[0], addresses[1]


def _folders(names: Sequence[str], values: Sequence[str | None]) -> Iterator[str]:
    for name, value in zip(names, values, strict=True):
        if value is not None and not value.isascii():
            raise invalid(f"The value {value} of the partition column {name} is not ASCII.")
        folder = _NULL_PARTITION if value is None else quote(value, safe=" !$&'()+,;@[]~|<>")
        yield f"{name}={folder}/"


def _files(
    unload: Unload, names: Sequence[str], kinds: Sequence[Kind], part: Partition
) -> Iterator[tuple[bytes, int, int]]:
    """Give a part's files with their bytes before compression, where that is known, and their rows."""
    if unload.parquet:
        for path, rows in part.parquet(unload.file_bytes, unload.compressed):
            body = path.read_bytes()
            path.unlink()
            yield body, len(body), rows
        return
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=unload.delimiter, escapechar=unload.escape, doublequote=False, lineterminator="\n"
    )
    rows = 0
    for row in part.printed():
        if rows == 0 and unload.header:
            writer.writerow(names)
        writer.writerow([_field(kind, value) for kind, value in zip(kinds, row, strict=True)])
        rows += 1
        if text.tell() >= unload.file_bytes:
            yield _packed(unload, text, rows)
            text.seek(0)
            text.truncate()
            rows = 0
    if rows:
        yield _packed(unload, text, rows)


def _packed(unload: Unload, text: io.StringIO, rows: int) -> tuple[bytes, int, int]:
    body = text.getvalue().encode()
    return gzip.compress(body, mtime=0) if unload.compressed else body, len(body), rows


def _field(kind: Kind, value: Datum) -> str | None:
    """Write a value for CSV: what is not single becomes JSON, as AWS documents."""
    if isinstance(kind, Type):
        return value if value is None else str(value)
    return None if value is None else json.dumps(_json(kind, value), separators=(",", ":"))


def _json(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    match kind:
        case Array(element):
            return [_json(element, item) for item in value]
        case Series(element):
            return [{"time": time, "value": _json(element, item)} for time, item in value]
        case Row(kinds):
            members = zip(kinds, value, strict=True)
            return {f"field{place}": _json(*pair) for place, pair in enumerate(members)}
        case Type.INTEGER | Type.BIGINT:
            return int(value)
        case Type.DOUBLE:
            return float(value)
        case Type.BOOLEAN:
            return value == "true"
        case _:
            return value
