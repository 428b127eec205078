"""Timestream as a service of this machine: its engine, its databases and tables in templates."""

from __future__ import annotations

import contextlib

from botocore.exceptions import BotoCoreError, ClientError

from onemachine.service import Client, Host, ResourceType, Service
from onemachine.template.stack import Resource
from onemachine.timestream.engine import Timestream
from onemachine.timestream.wire import Direct, install


def _installed(host: Host) -> Timestream:
    """Put an engine into moto; it writes reports of records that lost as a client of S3."""

    def put(bucket: str, key: str, body: bytes) -> None:
        try:
            host.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"cannot write s3://{bucket}/{key}: {error}") from error

    path = host.data and host.data / "timestream.duckdb"
    engine = Timestream(path=path, report_magnetic_conflicts=put)
    install(engine)
    return engine


def _create_database(client: Client, resource: Resource) -> None:
    write = client("timestream-write")
    with contextlib.suppress(write.exceptions.ConflictException):  # there from an earlier run
        write.create_database(DatabaseName=resource.name)


def _create_table(client: Client, resource: Resource) -> None:
    write = client("timestream-write")
    table = {
        "DatabaseName": resource.properties["DatabaseName"],
        "TableName": resource.name,
        "RetentionProperties": resource.properties["RetentionProperties"],
        "MagneticStoreWriteProperties": resource.properties["MagneticStoreWriteProperties"],
    }
    try:
        write.create_table(**table)
    except write.exceptions.ConflictException:  # there from an earlier run
        write.update_table(**table)


_ARN = "timestream:{region}:{account}:database/"
_DATABASE = ResourceType(
    "AWS::Timestream::Database", "DatabaseName", arn=f"{_ARN}{{name}}", create=_create_database
)
_TABLE = ResourceType(
    "AWS::Timestream::Table",
    "TableName",
    ref="{DatabaseName}|{name}",
    arn=f"{_ARN}{{DatabaseName}}/table/{{name}}",
    others={"Name": "{name}"},
    create=_create_table,
)
SERVICE = Service(
    "timestream",
    (_DATABASE, _TABLE),
    install=_installed,
    remove=Timestream.close,
    front=Direct,
    clients=("timestream-write", "timestream-query"),
)
