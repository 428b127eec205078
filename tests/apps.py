"""An application of one function and the pipeline that takes its lines, on one machine."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onemachine.pipeline import App, Pipeline

from cli import stages
from cli.apps import ROOT
from cli.target import target_of

GROUP = "/aws/lambda/app-Api"
_TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Api:
    Type: AWS::Serverless::Function
    Properties: {{Runtime: python3.13, CodeUri: src, Handler: api.handler, Timeout: 60}}
  {resources}
"""


def app_and_tagline(folder: Path, code: str, resources: str = "", **parameters: str) -> list[App]:
    """Write an application, and return it and the pipeline.

    Args:
        folder: Where to.
        code: The module of its function `Api`, with `handler`.
        resources: What else is in its template.
        parameters: The pipeline's.
    """
    (folder / "src").mkdir()
    (folder / "src" / "api.py").write_text(code)
    (folder / "template.yml").write_text(_TEMPLATE.format(resources=resources))
    given = {"LogGroups": GROUP, "BatchWindowSeconds": "0", "MeterBatchWindowSeconds": "0", **parameters}
    return [App("app", folder / "template.yml"), App("tagline", ROOT / "template.yml", given)]


def quarantined(pipeline: Pipeline) -> dict[str, int]:
    """Return how many lines are in quarantine, by their reasons."""
    return {reason: count.records for reason, count in stages.quarantined(target_of(pipeline)).items()}


@contextmanager
def kills(pipeline: Pipeline, output: str, times: int, chance: random.Random) -> Iterator[None]:
    """Kill a function of the pipeline again and again, while the block runs and until all kills are done."""

    def kill() -> None:
        for _ in range(times):
            time.sleep(chance.uniform(0.05, 0.5))
            pipeline.functions.kill(pipeline.outputs["tagline"][output])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()
