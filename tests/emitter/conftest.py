"""An emitter that writes where it can be read back, and nothing of Lambda's in the environment."""

import pytest
from tagline import Emitter

from tests.emitter.lines import NOW, Lines


@pytest.fixture(autouse=True)
def no_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("_X_AMZN_TRACE_ID", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_LOG_LEVEL", "TAGLINE_TAG"),
        *("AWS_LAMBDA_INITIALIZATION_TYPE", "TAGLINE_DISABLED", "TAGLINE_MAX_LINE_BYTES"),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def emitter(lines: Lines) -> Emitter:
    return Emitter(stream=lines, clock=lambda: NOW)
