"""The roll-ups of one client: what a tenant may see. Pure."""

from __future__ import annotations

from dataclasses import replace

from consumers.accounts.minutes import NO_STATUS
from exporter.usage.rollup import Completeness, Numbers, Other, RollUp, Usage


def of_client(rollup: RollUp, client: str) -> RollUp:
    """Return the part of a roll-up that is one client's.

    Of a client's requests to a route, only their number is kept: they have no status and no duration there. A
    roll-up of a day has all of the client's requests in its first hour. What is known of lines that did not
    arrive is of all clients, and left out.

    Args:
        rollup: The roll-up, with its requests by route and client.
        client: The client.
    """
    numbers = rollup.usage.clients.get(client, Numbers())
    by_route = {route: count for (route, other), count in rollup.usage.pairs.items() if other == client}
    rest = numbers.requests - sum(by_route.values())
    usage = Usage()
    if numbers.requests:
        usage = Usage(
            hours={f"{rollup.start:%Y-%m-%d %H}": numbers},
            routes={route: _counted(count) for route, count in by_route.items()},
            clients={client: numbers},
            pairs={(route, client): count for route, count in by_route.items()},
            other_routes=Other(1, _counted(rest)) if rest else Other(),
        )
    return replace(rollup, usage=usage, completeness=Completeness())


def _counted(requests: int) -> Numbers:
    return Numbers(statuses={NO_STATUS: requests})
