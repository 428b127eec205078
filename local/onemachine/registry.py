"""The services of this machine: one line for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onemachine import dynamodb, insights, kinesis, logs, s3, schedules, secretsmanager, sns, sqs
from onemachine.athena.resources import SERVICE as ATHENA
from onemachine.service import ResourceType, Service, api_id, uuid_of
from onemachine.timestream.resources import SERVICE as TIMESTREAM

_LAMBDA = (
    ResourceType("AWS::Lambda::Function", "FunctionName", arn="lambda:{region}:{account}:function:{name}"),
    ResourceType("AWS::Lambda::EventInvokeConfig"),
    ResourceType("AWS::Lambda::EventSourceMapping", others={"Id": "{name}"}, unnamed=uuid_of),
    ResourceType(
        "AWS::Lambda::LayerVersion", "LayerName", "arn:aws:lambda:{region}:{account}:layer:{name}:1"
    ),
    ResourceType("AWS::Lambda::Permission"),
)
_HTTP_API = {"ApiId": "{name}", "ApiEndpoint": "https://{name}.execute-api.{region}.amazonaws.com"}
_API_GATEWAY = (
    ResourceType("AWS::ApiGateway::Account"),
    ResourceType("AWS::ApiGateway::ApiKey", others={"APIKeyId": "{name}"}, unnamed=api_id),
    ResourceType("AWS::ApiGateway::Deployment"),
    ResourceType("AWS::ApiGateway::RestApi", others={"RootResourceId": "root"}, unnamed=api_id),
    ResourceType("AWS::ApiGateway::Stage", "StageName"),
    ResourceType("AWS::ApiGateway::UsagePlan", others={"Id": "{name}"}, unnamed=api_id),
    ResourceType("AWS::ApiGateway::UsagePlanKey", others={"Id": "{name}"}, unnamed=api_id),
    ResourceType("AWS::ApiGatewayV2::Api", others=_HTTP_API, unnamed=api_id),
    ResourceType("AWS::ApiGatewayV2::Stage"),
)
_ALARM_ARN = "cloudwatch:{region}:{account}:alarm:{name}"
_CLOUDWATCH = (
    ResourceType("AWS::CloudWatch::Alarm", "AlarmName", arn=_ALARM_ARN),
    ResourceType("AWS::CloudWatch::CompositeAlarm", "AlarmName", arn=_ALARM_ARN),
    ResourceType("AWS::CloudWatch::Dashboard"),
)
_RULE = ResourceType("AWS::Events::Rule", "Name", arn="events:{region}:{account}:rule/{name}")
_IAM = (
    ResourceType("AWS::IAM::Policy"),
    ResourceType("AWS::IAM::Role", "RoleName", arn="iam::{account}:role/{name}"),
)

SERVICES = (
    # What has to be there before others name it comes first.
    dynamodb.SERVICE,
    sqs.SERVICE,
    sns.SERVICE,
    kinesis.SERVICE,
    s3.SERVICE,
    secretsmanager.SERVICE,
    TIMESTREAM,
    ATHENA,
    logs.SERVICE,
    Service("insights", install=lambda _: insights.install()),
    # The pipeline runs these.
    Service("lambda", _LAMBDA),
    Service("apigateway", _API_GATEWAY),
    Service("monitoring", _CLOUDWATCH),
    Service("events", (_RULE,)),
    Service("scheduler", (schedules.SCHEDULE,)),
    # These have nothing to do here: who asks is let in, and traces are not kept.
    Service("iam", _IAM),
    Service("xray", (ResourceType("AWS::XRay::Group"), ResourceType("AWS::XRay::SamplingRule"))),
)


def types_of(services: Iterable[Service]) -> Mapping[str, ResourceType]:
    """Return the types of services' resources by name, each after those that it needs."""
    return {each.name: each for service in services for each in service.types}


TYPES = types_of(SERVICES)
