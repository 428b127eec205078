"""Tagline's own stacks on one machine: the pipeline, with the samples or with a template of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from consumers.rows.registry import LOCAL_STORE
from local import template
from local.pipeline import ROOT, App, function_of

USER_STACK = "app"


def tagline_with_samples(*, window_s: int = 1, pets: bool = False, store: str = LOCAL_STORE) -> list[App]:
    """Return the pipeline and the sample application whose records it takes.

    Args:
        window_s: How long the consumer waits for a batch to fill, in seconds.
        pets: Whether to run the pets API as well; its requirements have to be installed.
        store: The store of the records: the parameter `Store`.
    """
    samples = [App("sample", ROOT / "examples" / "template.yml"), *([pets_app()] if pets else [])]
    functions = ["sample-SampleApi", "sample-AccessLogReplay", "sample-Orders"]
    functions += ["pets-PetsApi"] if pets else []
    return [*samples, tagline_app([f"/aws/lambda/{name}" for name in functions], window_s, store)]


def tagline_app(log_groups: Sequence[str], window_s: int, store: str) -> App:
    """Return the pipeline, which takes the lines of log groups."""
    parameters = {"LogGroups": ",".join(log_groups), "BatchWindowSeconds": str(window_s), "Store": store}
    return App("tagline", ROOT / "template.yml", parameters)


def pets_app() -> App:
    """Return the pets API: FastAPI under Mangum, with its table in DynamoDB."""
    return App("pets", ROOT / "examples" / "pets_api" / "template.yml")


def tagline_with_template(
    path: Path, parameters: Mapping[str, str] | None = None, *, window_s: int = 1, store: str = LOCAL_STORE
) -> list[App]:
    """Return a SAM template of the user's own and the pipeline, which takes the lines of its functions.

    Nothing is installed: functions import what lies in their `CodeUri` and what this interpreter has.
    `sam build` puts requirements beside the code, and its `.aws-sam/build/template.yaml` is such a template.

    Args:
        path: The template.
        parameters: Values for its parameters, where they are not the defaults.
        window_s: How long the consumer waits for a batch to fill, in seconds.
        store: The store of the records: the parameter `Store`.

    Raises:
        TemplateError: The template cannot be run.
    """
    own = App(USER_STACK, path.resolve(), dict(parameters or {}))
    stack = template.resolve(
        template.translate(path), own.parameters, stack_name=own.name, endpoint="http://127.0.0.1"
    )
    specs = template.functions(stack)
    for spec in specs:
        function_of(spec, path.parent)
    groups = list(dict.fromkeys(spec.log_group for spec in specs))
    return [own, tagline_app(groups, window_s, store)]
