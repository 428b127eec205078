"""Settings are read once, and all that is wrong is said at once."""

from dataclasses import dataclass

import pytest

from consumers.settings import SettingsError, read_settings


@dataclass(frozen=True)
class Settings:
    bucket: str
    link_seconds: int
    tag: str = "usage_record"
    days: int = 31


def test_fields_are_read_by_their_names_in_capitals() -> None:
    environ = {"BUCKET": "b", "LINK_SECONDS": "600", "DAYS": "7", "OTHER": "x"}

    assert read_settings(Settings, environ) == Settings("b", 600, "usage_record", 7)


def test_all_that_is_missing_or_unreadable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(Settings, {"LINK_SECONDS": "ten", "DAYS": "-1"})

    assert str(caught.value) == (
        "BUCKET is not set; LINK_SECONDS is 'ten', not a whole number; DAYS is '-1', not a whole number"
    )


def test_an_empty_variable_is_none() -> None:
    with pytest.raises(SettingsError, match="BUCKET is not set"):
        read_settings(Settings, {"BUCKET": "", "LINK_SECONDS": "1"})
    assert read_settings(Settings, {"BUCKET": "b", "LINK_SECONDS": "1", "TAG": ""}).tag == "usage_record"
