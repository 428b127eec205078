"""Lambda entry: decode -> extract a meter -> an ingest file for each Kinesis record, or quarantine."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import boto3
from botocore.config import Config

from consumers.bucket import Bucket, consumer_config
from consumers.deadlines import END, LAST, Retry, countdown
from consumers.lines import quarantine, telemetry
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.places import place_of_arn
from consumers.lines.prefix import check_prefix
from consumers.lines.telemetry import Timings
from consumers.meters import destinations, sender
from consumers.meters.destinations import Api, Destination, Files
from consumers.meters.ecs import read_documents
from consumers.meters.meter import Unit, read_units, take_units
from consumers.meters.search import Search
from consumers.outcomes import Duplicate, Outcome, Refused, Stored, Unwritten
from consumers.sending import Pool, write
from consumers.settings import SettingsError, read_settings
from consumers.workers import Workers

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# So many Kinesis records are written at once, and held in memory.
WRITERS: Final = 8
# One of these settings names where records are sent.
DESTINATIONS: Final = ("METER_BUCKET", "METER_URL", "SEARCH_URL")
# Addresses that a key can be sent to: nobody else reads what stays on one machine.
_PRIVATE: Final = re.compile(r"https://|http://(127\.0\.0\.1|localhost)(:[0-9]+)?(/|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Settings:
    """The function's settings from its environment; docs/reference/settings.md."""

    tagline_tag: str
    meter_tag: str
    bucket: str
    own_log_groups: str
    tagline_prefix: str = ""
    meter_bucket: str = ""
    meter_prefix: str = "ingest/records/"
    meter_bucket_region: str = ""
    meter_role_arn: str = ""
    meter_external_id: str = ""
    meter_object_acl: str = ""
    meter_url: str = ""
    meter_api_key_arn: str = ""
    search_url: str = ""


def make_handler(
    destination: Destination,
    objects: quarantine.ObjectWriter,
    *,
    meter_tag: str,
    tag: str,
    own_log_groups: str,
    report: Callable[[Ledger], None],
    threads: int = WRITERS,
    prefix: str = "",
    documents: bool = False,
) -> Handler:
    """Return a Lambda handler that sends the meter records of a Kinesis batch to where they are counted.

    Args:
        destination: Where they go.
        objects: Where rejected lines are kept.
        meter_tag: The token that stands right before a meter record.
        tag: The token that marks the pipeline's own records, of which those of type `meter` are taken.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
        report: Is given the batch's ledger at its end.
        threads: Requests to the destination, or to the bucket, at the same time.
        prefix: The setting TAGLINE_PREFIX: what may be before a record, beside the runtimes' prefixes.
        documents: Whether all records are sent, as documents for a search index, instead of meter records.
    """
    # A destination that does not answer keeps all of its threads busy: the bucket has others.
    senders, keepers = Pool(threads), Workers(threads)
    report = telemetry.BestEffort(report)

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        nonlocal senders, keepers

        remaining = countdown(context)
        senders, keepers = senders.renewed(), keepers.renewed()
        ledger, timings = Ledger(event["Records"], place_of_arn(context.invoked_function_arn)), Timings()
        if documents:
            units = read_documents(ledger, tag, own_log_groups, prefix)
        else:
            units = read_units(ledger, meter_tag, tag, own_log_groups, prefix)
        known: dict[str, list[Outcome]] = {}
        while window := take_units(units, WRITERS):
            named = [(unit.name(), unit) for unit in window]
            # A list that comes twice in a batch is written once: the first of them.
            fresh = {name: unit for name, unit in reversed(named) if name not in known}
            known |= send_units(destination, fresh, remaining, senders, timings)
            for name, unit in named:
                record_unit_outcomes(ledger, unit, known[name], again=fresh.get(name) is not unit)
        ledger.write_seconds = timings.seconds["write"]
        in_time = partial(keepers.at_once, lambda: remaining() - END)
        ledger.keep(objects, in_time, lambda: remaining() <= LAST)
        report(ledger)
        return ledger.response()

    return handler


def send_units(
    destination: Destination,
    units: Mapping[str, Unit],
    remaining: Callable[[], float],
    pool: Pool,
    timings: Timings,
) -> dict[str, list[Outcome]]:
    """Send units at the same time, and return the outcomes of each one's records.

    Args:
        destination: Where they go.
        units: The units by their names.
        remaining: Gives the seconds that are left of the invocation.
        pool: Its threads send.
        timings: Adds up how long was waited.
    """
    outcomes: dict[str, list[Outcome]] = {
        name: [Unwritten("no answer")] * len(unit.meters) for name, unit in units.items()
    }
    requests = (
        request
        for name, unit in units.items()
        for request in destination.requests([((name, index), each) for index, each in enumerate(unit.meters)])
    )
    for meters, decided in write(destination, requests, remaining, pool, timings):
        for ((name, index), _), outcome in zip(meters, decided, strict=True):
            outcomes[name][index] = outcome
    return outcomes


def record_unit_outcomes(ledger: Ledger, unit: Unit, outcomes: list[Outcome], *, again: bool) -> None:
    """Record the outcomes of a unit's records in the ledger.

    Args:
        ledger: The batch's ledger.
        unit: The records.
        outcomes: The outcome of each.
        again: Whether the batch has had the same list before.
    """
    for event, outcome in zip(unit.events, outcomes, strict=True):
        match outcome:
            case Stored() if again:
                ledger.duplicate += 1
            case Stored():
                ledger.stored += 1
            case Duplicate():
                ledger.duplicate += 1
            case Refused(reason, detail):
                ledger.reject(unit.position, event, Rejected(reason, detail))
            case Unwritten():
                ledger.fail(unit.position)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Send the meter records of a Kinesis batch to where they are counted."""
    return _handler_of_environment()(event, context)


@cache
def _handler_of_environment() -> Handler:
    return from_environment(os.environ)


def from_environment(environ: Mapping[str, str]) -> Handler:
    """Return the handler that the environment describes.

    Args:
        environ: The environment.

    Raises:
        SettingsError: If a setting is missing or wrong.
    """
    settings = read_settings(Settings, environ)
    destination = make_destination(settings)
    return make_handler(
        destination,
        Bucket(boto3.client("s3", config=consumer_config(WRITERS)), settings.bucket),
        meter_tag=settings.meter_tag,
        tag=settings.tagline_tag,
        own_log_groups=settings.own_log_groups,
        report=partial(report_meters, store=destination.store),
        prefix=check_prefix(settings.tagline_prefix),
        documents=bool(settings.search_url),
    )


def make_destination(settings: Settings) -> Destination:
    """Return the destination that the settings name.

    Raises:
        SettingsError: If they name none or several, or an address that is not https, or no key for it.
    """
    retry = Retry(time.sleep, random.random)
    named = {name: value for name in DESTINATIONS if (value := getattr(settings, name.lower()))}
    if len(named) != 1:
        raise SettingsError(
            f"one of {', '.join(DESTINATIONS)} has to be set, not {', '.join(named) or 'none'}"
        )
    if not settings.meter_bucket:
        ((name, url),) = named.items()
        if not _PRIVATE.match(url):
            raise SettingsError(f"{name} is {url!r}, not https: the key would be readable")
        if not settings.meter_api_key_arn:
            raise SettingsError("METER_API_KEY_ARN is not set")
        read_key = partial(destinations.read_secret, settings.meter_api_key_arn)
        return (Search if settings.search_url else Api)(url, read_key, retry=retry)
    session = (
        destinations.assume(
            boto3.client("sts", config=consumer_config(1)),
            settings.meter_role_arn,
            settings.meter_external_id,
        )
        if settings.meter_role_arn
        else boto3.Session()
    )
    client = session.client(
        "s3",
        region_name=settings.meter_bucket_region or None,
        config=Config(
            # Retries are made by the destination, within the time that the invocation has left.
            retries={"total_max_attempts": 1},
            connect_timeout=sender.CONNECT_TIMEOUT,
            read_timeout=sender.READ_TIMEOUT,
            max_pool_connections=WRITERS,
        ),
    )
    return Files(
        client, settings.meter_bucket, settings.meter_prefix, acl=settings.meter_object_acl, retry=retry
    )


# The ledger's counts that mean something here.
_REPORTED = (
    *("records", "received", "mentioned", "ignored", "control", "recursion"),
    *("stored", "duplicate", "quarantined", "unwritten", "unreported"),
)


def report_meters(ledger: Ledger, store: str) -> None:
    """Write the invocation's one summary line, and its metrics. No contents of records.

    Args:
        ledger: The batch's ledger.
        store: The kind of destination.
    """
    dimensions = {"stage": "meters", "store": store}
    counts = ledger.counts()
    reported = {name: counts[name] for name in _REPORTED}
    telemetry.report_batch(ledger, dimensions, reported, fields=dimensions)
