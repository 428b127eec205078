"""A whole pipeline per test: with `pytest_plugins = ["cli.pytest_plugin"]`, ask for `tagline`.

Services run in the test's process. Functions do as well, which is quickest; with
`@pytest.mark.tagline(processes=True)` they run under the Lambda runtime client, in their own processes,
with the template's memory and time-out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from onemachine.pipeline import Pipeline

from cli.apps import tagline_with_samples


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "tagline(processes=False, apps=None): how the `tagline` fixture runs functions, and which stacks",
    )


@pytest.fixture
def tagline(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """A running pipeline, empty, for this test alone.

    Its stacks are the pipeline and the sample application, unless the marker names other `apps`
    (`onemachine.pipeline.App`).
    """
    marker = request.node.get_closest_marker("tagline")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    apps = options.get("apps") or tagline_with_samples(window_s=0)
    with Pipeline(apps, in_process=not options.get("processes", False)) as pipeline:
        yield pipeline
