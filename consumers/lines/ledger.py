"""What became of every line of a batch, and where a retry has to begin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from sys import getsizeof
from typing import Any, Final

from consumers.lines import quarantine
from consumers.lines.extract import Rejected
from consumers.lines.places import Place
from consumers.lines.subscription import LogEvent

_DAY_MS = 86_400_000

# Rejected lines stay in memory until the end of the batch. As JSON, they then take up to seven times as much.
MAX_REJECTED_BYTES: Final = 32 * 1024 * 1024
_REJECTION_BYTES: Final = 512  # beside its text

AtOnce = Callable[[Callable[[Any], bool], Iterable[Any]], Iterable[bool]]
"""Calls something with each of several things, as `map` does, or with some of them at the same time."""


@dataclass(slots=True)
class Ledger:
    """Counts of one batch. A position is a Kinesis record's index in the batch, in stream order.

    Attributes:
        records: The Kinesis records of the event.
        place: Where the function is that reads them.
        received: Lines that are marked as records, also those that were rejected.
        mentioned: Lines that contain the tag and are not marked as records, by the position of their Kinesis
            record, their day since 1970 and their log group.
        ignored: Lines without the tag.
        control: CloudWatch's own messages.
        recursion: Lines of the pipeline's own log groups, dropped.
        stored: Rows that the store has taken, also those that it had already.
        duplicate: Lines whose row another line of the same request has, or the store in a higher version.
        not_numbers: Values left out because they are no finite numbers.
        unread_times: Lines whose `timestamp` cannot be read, and which have the time of the log event.
        extra: Fields without their own column, kept in `_extra`.
        others: Dimensions that hold `other` instead of the record's value.
        overflowed: Rows whose record is kept whole beside the store.
        quarantined: Lines and Kinesis records kept in quarantine, by reason.
        unwritten: Lines that are neither stored nor kept, and are delivered again.
        unaccounted: Objects of the accounting that could not be written, for which the batch fails.
        unreported: Batches right before this one whose metrics and summary line could not be written.
        write_seconds: How long the store took for all of its requests.
    """

    records: list[dict[str, Any]]
    place: Place = field(default_factory=Place)
    received: int = 0
    mentioned: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    ignored: int = 0
    control: int = 0
    recursion: int = 0
    stored: int = 0
    duplicate: int = 0
    not_numbers: int = 0
    unread_times: int = 0
    extra: int = 0
    others: int = 0
    overflowed: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    unwritten: int = 0
    unaccounted: int = 0
    unreported: int = 0
    write_seconds: float = 0.0
    _rejections: dict[tuple[int, str], list[tuple[LogEvent | None, Rejected]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _failed: int | None = None
    _rejected_bytes: Counter[int] = field(default_factory=Counter)
    _all_rejected_bytes: int = 0
    _given_up: set[int] = field(default_factory=set)

    def reject(self, position: int, event: LogEvent | None, rejected: Rejected) -> None:
        """Note a line for quarantine, or a whole Kinesis record if it has no event."""
        self._rejections[position, rejected.reason].append((event, rejected))
        if event is not None:
            size = _REJECTION_BYTES + getsizeof(event.message)
            self._rejected_bytes[position] += size
            self._all_rejected_bytes += size

    def reject_whole(self, position: int, rejected: Rejected) -> None:
        """Note a whole Kinesis record for quarantine, instead of its lines that were rejected so far."""
        self._give_up(position)
        self.reject(position, None, rejected)

    def limit_memory(self, position: int, reason: str) -> None:
        """Give up the Kinesis record that is being read if the rejected lines take too much memory.

        If other records have some of them, it is delivered again, with all that follow. If it has all of
        them, it is kept whole.

        Args:
            position: The position of the Kinesis record.
            reason: The reason of a whole Kinesis record.
        """
        if self._all_rejected_bytes <= MAX_REJECTED_BYTES:
            return
        own = self._rejected_bytes[position]
        if own > MAX_REJECTED_BYTES or own == self._all_rejected_bytes:
            problem = f"more than {MAX_REJECTED_BYTES:,} bytes of its lines cannot be read"
            self.reject_whole(position, Rejected(reason, problem))
        else:
            self._give_up(position)
            self.fail(position)

    def is_given_up(self, position: int) -> bool:
        """Tell whether the rest of a Kinesis record is not read."""
        return position in self._given_up

    def _give_up(self, position: int) -> None:
        self._given_up.add(position)
        self._all_rejected_bytes -= self._rejected_bytes.pop(position, 0)
        for key in [key for key in self._rejections if key[0] == position]:
            del self._rejections[key]

    def mention(self, position: int, timestamp: int, log_group: str) -> None:
        """Count a line that only mentions the tag."""
        self.mentioned[position, timestamp // _DAY_MS, log_group] += 1

    def fail(self, position: int, lines: int = 1) -> None:
        """Note that lines of a Kinesis record are neither stored nor kept: it has to be delivered again."""
        self.unwritten += lines
        self._failed = position if self._failed is None else min(self._failed, position)

    def keep(
        self,
        objects: quarantine.ObjectWriter,
        at_once: AtOnce = map,
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write what was rejected to quarantine; if that fails, the Kinesis record fails.

        Records from the first failed one on are not written: they will be redelivered, and a partial object
        could overwrite a complete one from an earlier delivery.

        Args:
            objects: Where to.
            at_once: As `map`; it may have several written at the same time.
            is_late: Tells whether no time is left for more.
        """

        def put(item: tuple[tuple[int, str], list[tuple[LogEvent | None, Rejected]]]) -> bool:
            (position, reason), rejections = item
            if (self._failed is not None and position >= self._failed) or is_late():
                return False
            record = self.records[position]
            try:
                objects.write(quarantine.object_key(reason, record), quarantine.lines(record, rejections))
            except OSError:
                return False
            return True

        items = sorted(self._rejections.items(), key=lambda item: item[0])
        for ((position, reason), rejections), kept in zip(items, at_once(put, items), strict=True):
            if kept:
                self.quarantined[reason] += len(rejections)
            else:
                self.fail(position, len(rejections))

    def rejections(self) -> Iterator[tuple[int, LogEvent | None, Rejected]]:
        """Yield what was rejected: its position, the log event if it was one, and why."""
        for (position, _), rejections in self._rejections.items():
            for event, rejected in rejections:
                yield position, event, rejected

    @property
    def failed(self) -> int | None:
        """The position from which on everything is delivered again, if anything is."""
        return self._failed

    def response(self) -> dict[str, Any]:
        """Return the handler's answer: the lowest sequence number from which Lambda has to begin again.

        https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
        """
        if self._failed is None:
            return {"batchItemFailures": []}
        return {
            "batchItemFailures": [{"itemIdentifier": self.records[self._failed]["kinesis"]["sequenceNumber"]}]
        }

    def bytes(self) -> int:
        """Return the size of the batch's data as it came: gzip, in base64."""
        datas = (record["kinesis"].get("data") for record in self.records)
        return sum(len(data) for data in datas if isinstance(data, str))

    def counts(self) -> dict[str, int]:
        """Return the counts by name; `quarantined` is their sum."""
        names = [each.name for each in fields(self) if each.type == "int" and not each.name.startswith("_")]
        counts = {name: getattr(self, name) for name in names}
        return {
            "records": len(self.records),
            **counts,
            "mentioned": self.mentioned.total(),
            "quarantined": self.quarantined.total(),
        }
