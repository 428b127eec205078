"""A pets API that says what it does: logs, metrics, traces and one usage record per request."""
