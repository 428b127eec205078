"""A whole pipeline per test: with `pytest_plugins = ["tagline_pipeline.pytest_plugin"]`, ask for `tagline`.

Services run in the test's process. Functions do as well, which is quickest; with
`@pytest.mark.tagline(processes=True)` they run under the Lambda runtime client, in separate processes,
with the template's memory and time-out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onemachine.functions import OwnModules
from onemachine.pipeline import Pipeline

from tagline_pipeline import FOLDER


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "tagline(template=None, parameters=None, processes=False, apps=None): "
        "the stack of the `tagline` fixture, and how it runs functions",
    )


@pytest.fixture
def tagline(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """A running pipeline, empty, for this test alone.

    It takes the lines of the marker's `template`, a path from pytest's root folder, with its `parameters`.
    Without one they are those of the sample application. `apps` are other stacks (`onemachine.pipeline.App`).
    """
    marker = request.node.get_closest_marker("tagline")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    # The tests' project may have a `cli` as well: ours is nowhere but here.
    stacks: Any = OwnModules([FOLDER]).import_module("cli.apps")
    if template := options.get("template"):
        path = stacks.built(request.config.rootpath / Path(template))
        apps = stacks.tagline_with_template(path, options.get("parameters"))
    else:
        apps = options.get("apps") or stacks.tagline_with_samples()
    with Pipeline(apps, in_process=not options.get("processes", False)) as pipeline:
        yield pipeline
