"""The transform that AWS runs on deployment, offline: SAM to CloudFormation."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import boto3
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse
from yaml import YAMLError

from onemachine.template.stack import REGION, TemplateError

LOCAL_CODE_BUCKET = "local-directory"
"""The bucket of a function's code after the transform; the key is the template's own `CodeUri`."""


NOT_RUN_BUCKET = "not-run"
"""The bucket of a function whose code cannot be run on one machine; the key is a key of `NOT_RUN`."""


NOT_RUN = {
    "image": "an image; only code in a directory runs here",
    "archive": "its code is in an archive; only code in a directory runs here",
    "inline": "inline code; only code in a directory runs here",
}


_LANGUAGE_EXTENSIONS = "AWS::LanguageExtensions"


FOR_EACH = "Fn::ForEach::"


# The translator warns of switches that a template cannot set.
logging.getLogger("samtranslator").addHandler(logging.NullHandler())


def translate(path: Path) -> dict[str, Any]:
    """Apply the SAM transform to a template, without asking AWS.

    The transform refuses code in directories, so each `CodeUri` is first made an address in S3 whose bucket
    is `LOCAL_CODE_BUCKET`. The code of a function that cannot be run here is in `NOT_RUN_BUCKET`. Nothing
    else changes, and intrinsic functions stay as they are.

    Args:
        path: The SAM template, YAML or JSON.

    Returns:
        The CloudFormation template.

    Raises:
        TemplateError: The file is not YAML, has no resources, is not valid SAM, or has a loop that makes a
            SAM resource.
    """
    template = _parsed(path)
    loops = _loops(template)
    shared = template.get("Globals", {}).get("Function", {})
    for resource in template["Resources"].values():
        properties = resource.get("Properties") or {}
        if resource["Type"] == "AWS::Serverless::Function":
            why = _why_not_run({**shared, **properties})
            if why:
                for name in ("ImageUri", "ImageConfig", "InlineCode"):
                    properties.pop(name, None)
                properties |= {"PackageType": "Zip", "CodeUri": f"s3://{NOT_RUN_BUCKET}/{why}"}
                properties = {"Handler": "none", "Runtime": "none", **properties}
            else:
                code = {**shared, **properties}.get("CodeUri", ".")
                properties["CodeUri"] = f"s3://{LOCAL_CODE_BUCKET}/{code}"
            resource["Properties"] = properties
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = f"s3://{LOCAL_CODE_BUCKET}/{properties.get('ContentUri', '.')}"
    # The translator takes the region, which it needs for the partition, from a session.
    session = boto3.Session(region_name=REGION)
    translator = Translator({}, Parser(), None, session)
    try:
        translated: dict[str, Any] = translator.translate(template, {})
    except InvalidDocumentException as error:
        raise TemplateError("; ".join(cause.message for cause in error.causes)) from error
    translator.metrics.publish()  # Nowhere; but unpublished ones are warned of on stderr.
    if loops:
        translated["Transform"] = _LANGUAGE_EXTENSIONS
        translated["Resources"].update(loops)
    return translated


def _parsed(path: Path) -> dict[str, Any]:
    try:
        template = yaml_parse(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, YAMLError) as error:
        raise TemplateError(f"{path} is not YAML or JSON: {' '.join(str(error).split())}") from error
    resources = template.get("Resources") if isinstance(template, dict) else None
    if not isinstance(resources, dict):
        raise TemplateError(f"{path} has no Resources")
    for logical_id, resource in resources.items():
        if not logical_id.startswith(FOR_EACH) and not isinstance((resource or {}).get("Type"), str):
            raise TemplateError(f"{path}: resource {logical_id} has no Type")
    return cast("dict[str, Any]", template)


def _why_not_run(properties: Mapping[str, Any]) -> str | None:
    """Return the key of `NOT_RUN` for a function's code, None for a directory."""
    if properties.get("PackageType") == "Image" or "ImageUri" in properties:
        return "image"
    if "InlineCode" in properties:
        return "inline"
    code = properties.get("CodeUri", ".")
    return None if isinstance(code, str) and not code.startswith("s3://") else "archive"


# The translator cannot read loops: https://github.com/aws/serverless-application-model/issues/3641
# They repeat for each value of a parameter, and parameters have values only when the template is resolved.
def _loops(template: Mapping[str, Any]) -> dict[str, Any]:
    """Take the loops out of a template's resources."""
    resources = template["Resources"]
    loops = {key: resources.pop(key) for key in list(resources) if key.startswith(FOR_EACH)}
    transforms = template.get("Transform", [])
    if loops and _LANGUAGE_EXTENSIONS not in (transforms if isinstance(transforms, list) else [transforms]):
        raise TemplateError(f"{next(iter(loops))} needs Transform: [{_LANGUAGE_EXTENSIONS}, ...]")
    for key, (_, _, fragment) in loops.items():
        for logical_id, resource in fragment.items():
            if logical_id.startswith(FOR_EACH) or resource["Type"].startswith("AWS::Serverless::"):
                raise TemplateError(
                    f"{key}: {logical_id} is a loop or a SAM resource, and a loop here can make neither"
                )
    return loops
