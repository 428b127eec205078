"""Tagline's own stacks on one machine: the pipeline, with the samples or with a template of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onemachine.pipeline import App, why_not_run
from onemachine.template.functions import functions
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import TemplateError

from consumers.rows.registry import LOCAL_STORE

USER_STACK = "app"
# Where the templates are: in the repository, or in what is installed.
ROOT = Path(__file__).resolve().parents[1]


def tagline_with_samples(
    *,
    pets: bool = False,
    store: str = LOCAL_STORE,
    parameters: Mapping[str, str] | None = None,
) -> list[App]:
    """Return the pipeline and the sample application whose records it takes.

    Args:
        pets: Whether to run the pets API as well; its requirements have to be installed.
        store: The store of the records: the parameter `Store`.
        parameters: Other parameters of the pipeline, where they are not the defaults.
    """
    samples = [App("sample", ROOT / "examples" / "template.yml"), *([pets_app()] if pets else [])]
    functions = ["sample-SampleApi", "sample-AccessLogReplay", "sample-Orders"]
    functions += ["pets-PetsApi"] if pets else []
    groups = [f"/aws/lambda/{name}" for name in functions]
    return [*samples, tagline_app(groups, store, parameters or {})]


def tagline_app(log_groups: Sequence[str], store: str, parameters: Mapping[str, str]) -> App:
    """Return the pipeline, which takes the lines of log groups, with values for its other parameters."""
    # Who tries something looks for its row at once: the consumer waits for no others.
    own = {"LogGroups": ",".join(log_groups), "BatchWindowSeconds": "0", "Store": store}
    return App("tagline", ROOT / "template.yml", {**own, **parameters})


def pets_app() -> App:
    """Return the pets API: FastAPI under Mangum, with its table in DynamoDB."""
    return App("pets", ROOT / "examples" / "pets_api" / "template.yml")


def built(path: Path) -> Path:
    """Return what `sam build` made of a template, with requirements beside the code.

    Without it, or if it is older than the template, the template is returned.
    """
    made = path.parent / ".aws-sam" / "build" / "template.yaml"
    if made.is_file() and made.stat().st_mtime >= path.stat().st_mtime:
        return made
    return path


def tagline_with_template(
    path: Path, parameters: Mapping[str, str] | None = None, *, store: str = LOCAL_STORE
) -> list[App]:
    """Return a SAM template of the user's own and the pipeline, which takes the lines of its functions.

    Nothing is installed: functions import what lies in their `CodeUri` and what this interpreter has.
    `sam build` puts requirements beside the code; see `built`.

    Args:
        path: The template.
        parameters: Values for its parameters, where they are not the defaults. A name that it does not have
            is a parameter of the pipeline.
        store: The store of the records: the parameter `Store`.

    Raises:
        TemplateError: The template cannot be run.
    """
    translated = translate(path)
    given = dict(parameters or {})
    own = {name: given.pop(name) for name in list(given) if name in translated.get("Parameters", {})}
    app = App(USER_STACK, path.resolve(), own)
    stack = resolve(translated, own, stack_name=app.name, endpoint="http://127.0.0.1")
    specs = functions(stack)
    groups = list(dict.fromkeys(spec.log_group for spec in specs if not why_not_run(spec, path.parent)))
    if not groups:
        reasons = [f"{spec.logical_id} ({why_not_run(spec, path.parent)})" for spec in specs]
        raise TemplateError(f"{path} has no function that runs here: {', '.join(reasons) or 'none'}")
    return [app, tagline_app(groups, store, given)]
