"""Documents carry the version of their format."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from consumers.documents import NewerDocumentError, check_version, known, load, stamped


def test_a_document_comes_back_with_its_version() -> None:
    document = {"key": "value", "list": [1]}

    assert load(json.dumps(stamped(document, 3)), 3, "the lock") == {"format_version": 3, **document}


def test_a_document_from_before_versions_has_version_1() -> None:
    assert load(b'{"key": "value"}', 1, "the lock") == {"key": "value"}


@pytest.mark.parametrize("version", [3, "3", 2.5, None])
def test_a_newer_version_is_refused_with_what_to_do(version: object) -> None:
    with pytest.raises(NewerDocumentError) as refused:
        load(json.dumps({"format_version": version}), 2, "the lock")

    assert str(refused.value) == (
        f"the lock has format_version {version!r}, and this Tagline reads versions up to 2: deploy the "
        "Tagline that wrote it, or a newer one"
    )


@pytest.mark.parametrize(("document", "version"), [({}, 1), ({"format_version": 2}, 2)])
def test_a_version_that_is_read_is_returned(document: dict[str, Any], version: int) -> None:
    assert check_version(document, 2) == version


@pytest.mark.parametrize("body", ["", "{", "[]", "1", "null", b"\xff"])
def test_what_is_not_an_object_is_refused(body: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"the lock is not a JSON object|Expecting|codec"):
        load(body, 1, "the lock")


@dataclass(frozen=True)
class Lock:
    run: str
    until: str = ""


class Column(NamedTuple):
    name: str
    type: str = "VARCHAR"


@pytest.mark.parametrize(
    ("kind", "read", "made"),
    [
        (Lock, {"run": "r", "new": 1}, Lock("r")),
        (Lock, {"run": "r", "until": "u", "format_version": 2}, Lock("r", "u")),
        (Column, {"type": "DOUBLE", "name": "status", "unit": "ms"}, Column("status", "DOUBLE")),
    ],
)
def test_keys_without_a_field_are_ignored(kind: Any, read: dict[str, Any], made: object) -> None:
    assert known(kind, read) == made


def test_a_key_that_is_needed_and_missing_is_an_error() -> None:
    with pytest.raises(TypeError, match="run"):
        known(Lock, {})
