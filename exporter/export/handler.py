"""Lambda entry: days of the store become files in the lake, and manifests that commit them."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.bucket import Bucket, Objects, client_config
from consumers.rows import schema
from consumers.settings import SettingsError, read_settings
from exporter.export.day import DayJob, Export
from exporter.export.hourly import LARGE_ROWS
from exporter.export.run import Exporter, run_of
from exporter.lake.forgotten_list import key_of_secret
from exporter.lake.formats import Format
from exporter.lake.glue import Catalog
from exporter.stores import store_of_function
from exporter.stores.metered import Metered

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

_GB = 10**9


class DaysFailedError(RuntimeError):
    """Days or tables could not be written; the message names each with its reason. The others were."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in the function's environment; docs/reference/settings.md."""

    bucket: str
    export_formats: str
    export_max_scanned_gb: int
    forgotten_key_arn: str
    lake_database: str
    lake_days: int
    store: str
    schemas: str = "schemas"


def make_handler(
    store: Metered,
    objects: Objects,
    *,
    invoke: Callable[[str, dict[str, Any]], None],
    formats: tuple[Format, ...] = (Format.CSV_GZ,),
    job: DayJob | None = None,
    report: Callable[[Export], None] = lambda _export: None,
    report_error: Callable[[str, Exception], None] = lambda _day, _error: None,
    report_failure: Callable[[str, str, bool], None] = lambda _day, _reason, _given_up: None,
    describe: Callable[[Format], None] = lambda _format: None,
    describe_fragments: Callable[[], None] = lambda: None,
    lake_days: int | None = None,
    large_rows: int = LARGE_ROWS,
) -> Handler:
    """Return a Lambda handler that exports days.

    Args:
        store: The store that has the rows.
        objects: The lake's bucket.
        invoke: Invokes a function, by its name, with an event, without waiting for it.
        formats: The files' formats.
        job: How days are written.
        report: Is given what became of each day in each format.
        report_error: Is given each day that an invocation could not write, with the exception.
        report_failure: Is given each day or table that a night could not write, why, and if that is given up.
        describe: Gives the table over a format's files the columns that they have by now.
        describe_fragments: Updates the table over the store's own files, and the view over all rows.
        lake_days: For how many days after its date the lake keeps a day; None for ever.
        large_rows: The most rows of a day that is not written hour by hour.
    """
    if store.includes_exports and Format.PARQUET not in formats:
        formats = (*formats, Format.PARQUET)  # the quickest to read back, and what SQL over closed days reads
    exporter = Exporter(store, objects, formats, job or DayJob(), report, report_error, lake_days, large_rows)

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        if event.get("tables"):
            return _only_tables(formats, describe, describe_fragments)
        run = run_of(event, objects, context.aws_request_id, exporter.job.now(), store.settles_after)
        store.reset(run.scanned)  # a function's process lives longer than its invocation
        done: list[dict[str, Any]] = []
        left = exporter.write(run, lambda: context.get_remaining_time_in_millis() / 1000, done)
        if left.days:
            if not run.waited_for:
                invoke(context.function_name, left.to_event())
            return {"days": done, "continues": left.to_event()}
        # A table that cannot be described is one failure: it does not hide those of days.
        failed = {**left.failed, **_describe_tables(formats, describe, describe_fragments)}
        if not run.nightly:
            if failed:
                raise DaysFailedError("; ".join(f"{unit}: {reason}" for unit, reason in failed.items()))
            return {"days": done}
        exporter.tidy_up(run)
        given_up = exporter.note_failures(left)
        for unit, reason in failed.items():
            report_failure(unit, reason, unit in given_up)
        # Lambda would repeat the whole night for an exception: only the days that failed are tried again.
        return {"days": done, "failed": failed} if failed else {"days": done}

    return handler


def _only_tables(
    formats: tuple[Format, ...], describe: Callable[[Format], None], describe_fragments: Callable[[], None]
) -> dict[str, Any]:
    if failed := _describe_tables(formats, describe, describe_fragments):
        raise DaysFailedError("; ".join(f"{table}: {reason}" for table, reason in failed.items()))
    return {"tables": True}


def _describe_tables(
    formats: tuple[Format, ...], describe: Callable[[Format], None], describe_fragments: Callable[[], None]
) -> dict[str, str]:
    """Update the tables over the files, and return why each that could not be updated was not."""
    updates: dict[str, Callable[[], None]] = {
        **{f"the table over {kind}": partial(describe, kind) for kind in formats},
        "the table over fragments and the view": describe_fragments,
    }
    failed: dict[str, str] = {}
    for table, update in updates.items():
        try:
            update()
        except Exception as error:  # noqa: BLE001 - one table's failure is not the others'
            failed[table] = f"{type(error).__name__}: {error}"
    return failed


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Export the day before the schedule's, the days to which rows came late, or those that are asked for.

    An event with `tables` only updates the tables.
    """
    export = _from_environment()
    # Garbage is looked for among new objects alone: among those of imports, it takes a tenth of the time.
    gc.freeze()
    try:
        return export(event, context)
    finally:
        gc.unfreeze()


@cache
def _from_environment() -> Handler:
    settings = read_settings(Settings, os.environ)
    functions = boto3.client("lambda")
    objects = Bucket(boto3.client("s3", config=client_config()), settings.bucket)
    # The schemas are beside the code, wherever that was unpacked.
    plans = schema.load_schemas(Path(__file__).parents[2] / settings.schemas)
    catalog = Catalog.of_account(settings.lake_database, objects)
    store = store_of_function(settings.store, os.environ, boto3.client)
    return make_handler(
        Metered(store, settings.export_max_scanned_gb * _GB),
        objects,
        invoke=lambda name, event: functions.invoke(
            FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode()
        ),
        formats=parse_formats(settings.export_formats),
        job=DayJob(plans=plans, read_key=key_of_secret(settings.forgotten_key_arn, boto3.client)),
        report=report_exported,
        report_error=_report_error,
        lake_days=settings.lake_days,
        report_failure=_report_failure,
        describe=catalog.describe,
        # The store that includes exports is the one whose own files are in the bucket.
        describe_fragments=(
            partial(catalog.describe_fragments, plans.columns) if store.includes_exports else lambda: None
        ),
    )


def parse_formats(value: str) -> tuple[Format, ...]:
    """Return the formats in a setting, with commas between.

    Raises:
        SettingsError: If one is not a format.
    """
    try:
        return tuple(Format(each.strip()) for each in value.split(","))
    except ValueError as error:
        raise SettingsError(f"EXPORT_FORMATS is {value!r}: {error}; there are {', '.join(Format)}") from None


def report_exported(export: Export) -> None:
    """Write the line and the metrics of a day in a format.

    Args:
        export: What became of the day.
    """
    manifest = export.manifest
    Logger().info("exported", extra=export.summary())
    metrics = Metrics()
    metrics.add_dimension(name="format", value=manifest.format)
    metrics.add_metric(name="exported_rows", unit=MetricUnit.Count, value=manifest.rows)
    metrics.add_metric(name="exported_bytes", unit=MetricUnit.Bytes, value=manifest.size)
    metrics.add_metric(name="exported_scanned_bytes", unit=MetricUnit.Bytes, value=export.spent.scanned)
    metrics.add_metric(name="exported_forgotten", unit=MetricUnit.Count, value=manifest.forgotten)
    metrics.add_metric(name="exported_not_restored", unit=MetricUnit.Count, value=manifest.not_restored)
    metrics.flush_metrics()


def _report_error(day: str, error: Exception) -> None:
    Logger().error("day not written", extra={"day": day}, exc_info=error)


def _report_failure(day: str, reason: str, is_given_up: bool) -> None:
    Logger().error("day failed", extra={"day": day, "reason": reason, "given_up": is_given_up})
    metrics = Metrics()
    metrics.add_metric(name="exported_failed", unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
