"""The names of ranges and figures, for programs that only describe them. Pure."""

from __future__ import annotations

RANGES = ("24h", "7d", "30d", "90d")
# Whole numbers, and numbers that are unknown where there is nothing to compute them from.
COUNTS = ("requests", "client_errors", "failures", "rate_limited", "auth_failures", "timed", "bytes")
MEASURES = (
    "client_error_rate",
    "failure_rate",
    "availability",
    "mean_ms",
    "p50_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
    "longest_ms",
    "total_ms",
)
SORTS = (
    "requests",
    "client_errors",
    "failures",
    "rate_limited",
    "auth_failures",
    "p95_ms",
    "total_ms",
    "change",
)
