"""What every test needs: an account that is nobody's."""

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from onemachine.functions import in_process

pytest_plugins = ["tagline_pipeline.pytest_plugin"]

for name, value in {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}.items():
    os.environ[name] = value
# What would send calls elsewhere, and what makes colours where no terminal is.
for name in (
    *("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"),
    *("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE"),
):
    os.environ.pop(name, None)

# Time decides no test: on a busy machine, any example may take long. Nor does chance: each run tries the same
# examples, so that what is red was made red by the change. `make fuzz` looks for others.
patient = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("same", patient, derandomize=True)
hypothesis.settings.register_profile("fuzz", patient, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


# Not "tagline": Powertools sets its level when a handler is used for the first time.
LOGGERS = ("", "benchmarks", "cli", "consumers", "emitter", "exporter", "onemachine")


def _shared_state() -> dict[str, object]:
    # A function that runs in this process has the environment for itself meanwhile.
    with in_process._only_one_runs:
        return _state_now()


def _state_now() -> dict[str, object]:
    levels = {f"level of logger '{name}'": logging.getLogger(name or None).level for name in LOGGERS}
    return {**os.environ, **levels, "working directory": str(Path.cwd())}


@pytest.fixture(autouse=True)
def _leaves_no_trace() -> Iterator[None]:
    """Fail the test that changes what the next one sees: which is next differs from run to run."""
    before = _shared_state()
    yield
    after = _shared_state()
    names = (before.keys() | after.keys()) - {"PYTEST_CURRENT_TEST"}
    changed = sorted(name for name in names if before.get(name) != after.get(name))
    assert not changed, f"the test left these changed: {changed}"


def pytest_unconfigure() -> None:
    """Let the interpreter end quietly.

    Hypothesis leaves a callback with the garbage collector that keeps modules alive at exit, and DuckDB then
    reports all its types as leaked.
    """
    gc.callbacks.clear()
