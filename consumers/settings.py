"""Settings from the environment: read once, frozen, all that is missing named at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, TypeVar, get_type_hints

from consumers.errors import TaglineError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


class SettingsError(TaglineError, ValueError):
    """The environment lacks a setting, or one has no readable value; the message names every one."""


def read_settings(kind: type[Settings], environ: Mapping[str, str]) -> Settings:
    """Return a settings dataclass filled from environment variables named like its fields, in capitals.

    Args:
        kind: The dataclass; its fields are `str` or `int`, and those with a default may be missing.
        environ: The variables, usually `os.environ`.

    Raises:
        SettingsError: If variables are missing, empty without having a default, or not whole numbers.
    """
    types = get_type_hints(kind)
    values: dict[str, str | int] = {}
    problems: list[str] = []
    for field in fields(kind):
        name = field.name.upper()
        value = environ.get(name, "")
        if value == "":
            if field.default is MISSING:
                problems.append(f"{name} is not set")
        elif types[field.name] is not int:
            values[field.name] = value
        elif value.isascii() and value.isdigit():
            values[field.name] = int(value)
        else:
            problems.append(f"{name} is {value!r}, not a whole number")
    if problems:
        raise SettingsError("; ".join(problems))
    return kind(**values)
