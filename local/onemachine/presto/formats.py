"""Writes the formats of date_format, date_parse, format_datetime and regexp_replace in DuckDB's terms.

A format is a text of the query. What is not below is refused.
"""

import re
from collections.abc import Iterator

from onemachine.presto.functions import cut_to_microseconds

# Of a DuckDB TIMESTAMP {0}, and of its fraction {1} in nanoseconds.
_YEAR, _MONTH, _DAY = "printf('%04d', year({0}))", "printf('%02d', month({0}))", "printf('%02d', day({0}))"
_HOUR, _HALF_HOUR = "printf('%02d', hour({0}))", "printf('%02d', (hour({0}) + 11) % 12 + 1)"
_MINUTE, _SECOND = "printf('%02d', minute({0}))", "printf('%02d', second({0}))"
_HALF = "CASE WHEN hour({0}) < 12 THEN 'AM' ELSE 'PM' END"

# https://trino.io/docs/current/functions/datetime.html#mysql-date-functions
_MYSQL = {
    "a": "dayname({0})[:3]",
    "b": "monthname({0})[:3]",
    "c": "CAST(month({0}) AS VARCHAR)",
    "d": _DAY,
    "e": "CAST(day({0}) AS VARCHAR)",
    # Six digits of which the last three are zeros: "000000 .. 999000".
    "f": "printf('%03d000', {1} // 1000000)",
    "H": _HOUR,
    "h": _HALF_HOUR,
    "I": _HALF_HOUR,
    "i": _MINUTE,
    "j": "printf('%03d', dayofyear({0}))",
    "k": "CAST(hour({0}) AS VARCHAR)",
    "l": "CAST((hour({0}) + 11) % 12 + 1 AS VARCHAR)",
    "M": "monthname({0})",
    "m": _MONTH,
    "p": _HALF,
    "r": f"{_HALF_HOUR} || ':' || {_MINUTE} || ':' || {_SECOND} || ' ' || {_HALF}",
    "S": _SECOND,
    "s": _SECOND,
    "T": f"{_HOUR} || ':' || {_MINUTE} || ':' || {_SECOND}",
    "v": "printf('%02d', week({0}))",
    "W": "dayname({0})",
    "x": "printf('%04d', isoyear({0}))",
    "Y": _YEAR,
    "y": "printf('%02d', year({0}) % 100)",
    "%": "'%'",
}
# https://trino.io/docs/current/functions/datetime.html#java-date-functions: patterns of JodaTime's.
_JODA = {
    "y": "CAST(year({0}) AS VARCHAR)",
    "yy": "printf('%02d', year({0}) % 100)",
    "yyyy": _YEAR,
    "YYYY": _YEAR,
    "M": "CAST(month({0}) AS VARCHAR)",
    "MM": _MONTH,
    "MMM": "monthname({0})[:3]",
    "MMMM": "monthname({0})",
    "d": "CAST(day({0}) AS VARCHAR)",
    "dd": _DAY,
    "D": "CAST(dayofyear({0}) AS VARCHAR)",
    "DDD": "printf('%03d', dayofyear({0}))",
    "E": "dayname({0})[:3]",
    "EEE": "dayname({0})[:3]",
    "EEEE": "dayname({0})",
    "H": "CAST(hour({0}) AS VARCHAR)",
    "HH": _HOUR,
    "h": "CAST((hour({0}) + 11) % 12 + 1 AS VARCHAR)",
    "hh": _HALF_HOUR,
    "m": "CAST(minute({0}) AS VARCHAR)",
    "mm": _MINUTE,
    "s": "CAST(second({0}) AS VARCHAR)",
    "ss": _SECOND,
    "S": "CAST({1} // 100000000 AS VARCHAR)",
    "SS": "printf('%02d', {1} // 10000000)",
    "SSS": "printf('%03d', {1} // 1000000)",
    "a": _HALF,
}
# What date_parse and parse_datetime take, in strptime's terms: numbers of which each has its full width, as
# DuckDB reads more texts than Trino does.
_MYSQL_PARSED = {"Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "i": r"\d{2}", "s": r"\d{2}"}
_JODA_PARSED = {"yyyy": "Y", "YYYY": "Y", "MM": "m", "dd": "d", "HH": "H", "mm": "i", "ss": "s"}
_STRPTIME = {"i": "M", "s": "S"}


class UnknownFormatError(ValueError):
    """A format, or a part of it, that is not known here."""


def date_format(moment: str, text: str) -> str:
    """Print a time by a MySQL format.

    Args:
        moment: DuckDB's text of a TIMESTAMP_NS.
        text: The format, e.g. `%Y-%m-%d %H:%i:%s`.

    Returns:
        DuckDB's text of a VARCHAR.

    Raises:
        UnknownFormatError: It has a part that is not supported here.
    """
    return _printed(moment, _mysql(text), _MYSQL)


def format_datetime(moment: str, text: str) -> str:
    """Print a time by a JodaTime pattern.

    Args:
        moment: DuckDB's text of a TIMESTAMP_NS.
        text: The pattern, e.g. `yyyy-MM-dd HH:mm:ss`.

    Returns:
        DuckDB's text of a VARCHAR.

    Raises:
        UnknownFormatError: It has a part that is not supported here.
    """
    return _printed(moment, _joda(text), _JODA)


def date_parse(value: str, text: str) -> tuple[str, str]:
    """Read a time by a MySQL format.

    Args:
        value: DuckDB's text of a VARCHAR.
        text: The format.

    Returns:
        DuckDB's text of a condition that the value is written so, and of the TIMESTAMP_NS that it is.

    Raises:
        UnknownFormatError: It has a part that is not supported here.
    """
    expanded = text.replace("%T", "%H:%i:%s").replace("%S", "%s")
    return _parsed(value, _mysql(expanded))


def parse_datetime(value: str, text: str) -> tuple[str, str]:
    """Read a time by a JodaTime pattern.

    Args:
        value: DuckDB's text of a VARCHAR.
        text: The pattern.

    Returns:
        As `date_parse`.

    Raises:
        UnknownFormatError: It has a part that is not supported here.
    """
    return _parsed(value, ((_JODA_PARSED.get(part, part), plain) for part, plain in _joda(text)))


def replacement(text: str) -> str:
    r"""Turn the replacement of Trino's regexp_replace, with `$1` for a group, into DuckDB's, with `\1`.

    Args:
        text: The replacement.

    Returns:
        DuckDB's.

    Raises:
        UnknownFormatError: It names a group, or has a dollar without a meaning.
    """

    def turned(match: re.Match[str]) -> str:
        part = match[0]
        if part.startswith("$"):
            if not part[1:].isdigit():
                raise UnknownFormatError(text)
            return f"\\{part[1:]}"
        # A character after a backslash stands for itself; a backslash is written as two in RE2.
        return part[1:].replace("\\", "\\\\")

    if re.search(r"\\$(?<!\\\\)", text):
        raise UnknownFormatError(text)
    return re.sub(r"\\.|\$[0-9]?", turned, text, flags=re.DOTALL)


def _mysql(text: str) -> Iterator[tuple[str, bool]]:
    for part in re.findall(r"%.|[^%]+|%", text, re.DOTALL):
        yield (part, True) if not part.startswith("%") or part == "%" else (part[1:], False)


def _joda(text: str) -> Iterator[tuple[str, bool]]:
    for match in re.finditer(r"'(?:[^']|'')*'|([A-Za-z])\1*|[^A-Za-z']+|'", text):
        part = match[0]
        if part == "'":
            raise UnknownFormatError(text)
        if part.startswith("'"):
            yield part[1:-1].replace("''", "'") or "'", True
        else:
            yield part, not part[0].isalpha()


def _printed(moment: str, parts: Iterator[tuple[str, bool]], known: dict[str, str]) -> str:
    cut, fraction = cut_to_microseconds(moment), f"(epoch_ns({moment}) % 1000000000)"
    # Not even a plain text is printed of null.
    pieces = [f"CASE WHEN {moment} IS NULL THEN NULL ELSE '' END"]
    for part, plain in parts:
        if plain:
            pieces.append(_quoted(part))
        elif part in known:
            pieces.append(known[part].replace("{0}", cut).replace("{1}", fraction))
        else:
            raise UnknownFormatError(part)
    return f"({' || '.join(f'({piece})' for piece in pieces)})"


def _parsed(value: str, parts: Iterator[tuple[str, bool]]) -> tuple[str, str]:
    pattern = layout = ""
    seen = []
    for part, plain in parts:
        if plain:
            pattern += re.escape(part)
            layout += part.replace("%", "%%")
        elif part in _MYSQL_PARSED and part not in seen:
            pattern += _MYSQL_PARSED[part]
            layout += "%" + _STRPTIME.get(part, part)
            seen.append(part)
        else:
            raise UnknownFormatError(part)
    if "Y" not in seen:
        raise UnknownFormatError("a format without a year")
    return (
        f"regexp_full_match({value}, {_quoted(pattern)})",
        f"make_timestamp_ns(epoch_us(strptime({value}, {_quoted(layout)})) * 1000)",
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
