"""The account and region that a log group is in: part of its name if they are not the pipeline's. Pure.

Two log groups of one name must not become one source: rows have it in their identity, accounts count by it.
Log groups of the pipeline's own account and region keep their names. CloudWatch's names have no colon.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)
_REGION: Final = re.compile(r"@([a-z]{2,4}(?:-[a-z]+){1,2}-\d{1,2})", re.ASCII)


class Place(NamedTuple):
    """Where something is; each is empty if it is not known.

    Attributes:
        account: The account's id.
        region: The region's name.
    """

    account: str = ""
    region: str = ""


def place_of_arn(arn: str) -> Place:
    """Return the account and region of an ARN: `arn:partition:service:region:account:resource`."""
    parts = arn.split(":", 5)
    return Place(parts[4], parts[3]) if len(parts) > 5 else Place()  # noqa: PLR2004 - an ARN's parts


def region_of_filters(names: Any) -> str:
    """Return the region of subscription filters: what is behind `@` at the end of the first such name.

    CloudWatch Logs sends the account and the filters of a log group, not its region.

    Args:
        names: The `subscriptionFilters` of an envelope.

    Returns:
        The region's name; empty if no filter's name has one.
    """
    for name in names if isinstance(names, list) else ():
        found = _REGION.fullmatch(name[name.rfind("@") :]) if isinstance(name, str) and "@" in name else None
        if found:
            return found[1]
    return ""


def qualify(log_group: str, there: Place, here: Place) -> str:
    """Return a log group's name with the account and region that it is in, if they are not the pipeline's.

    Args:
        log_group: Its name; one that is qualified already, as quarantine keeps it, is returned as it is.
        there: Where it is.
        here: Where the pipeline is; of what is not known, nothing is added.

    Returns:
        `account:region:name`, `account:name`, `region:name` or the name.
    """
    account, region = there
    if ":" in log_group or (account == here.account and not region):
        return log_group
    parts = [log_group]
    if here.region and region and region != here.region:
        parts.insert(0, region)
    if here.account and account != here.account and _ACCOUNT.fullmatch(account):
        parts.insert(0, account)
    return ":".join(parts)


def split_source(source: str) -> tuple[str, str]:
    """Return the region in a qualified name, empty if it has none, and the log group's own name."""
    *there, log_group = source.split(":")
    return (there[-1] if there and not there[-1].isdigit() else ""), log_group
