"""Records on one machine: each that a function emits is one document of the cluster in `SearchUrl`."""

import json
import random
from collections import Counter
from contextlib import closing
from pathlib import Path

from onemachine.faults import Fault, Kind
from onemachine.pipeline import App, Pipeline

from cli.doctor.checks import examine
from cli.doctor.search_cluster import search_cluster
from cli.target import target_of
from tests.apps import app_and_tagline, kills, quarantined
from tests.consumers.meters.test_search import shipped
from tests.search_cluster import Cluster

KEY_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:search-key"
KEY = "Key: {Type: AWS::SecretsManager::Secret, Properties: {Name: search-key, SecretString: ApiKey secret}}"
FUNCTION = """
from tagline import Emitter

emitter = Emitter()


def handler(event, _context):
    for number in range(event["first"], event["last"]):
        emitter.emit({"route": "/pets", "status": 200, "pet": {"number": number}}, id=f"r{number}")
    print('usage_record {"broken', flush=True)
"""


def apps(folder: Path, cluster: Cluster) -> list[App]:
    return app_and_tagline(folder, FUNCTION, KEY, Store="lake", SearchUrl=cluster.url, MeterApiKeyArn=KEY_ARN)


def emit(pipeline: Pipeline, first: int, last: int) -> None:
    pipeline.functions.invoke("app-Api", json.dumps({"first": first, "last": last}).encode())


def test_each_record_is_one_document_whatever_is_killed_and_fails_on_the_way(tmp_path: Path) -> None:
    chance = random.Random(7)
    with closing(Cluster("elasticsearch")) as cluster, Pipeline(apps(tmp_path, cluster)) as pipeline:
        cluster.templates = {"tagline": shipped("elasticsearch", "template")}
        cluster.answers.extend(chance.choice([200, 429, 503]) for _ in range(20))
        pipeline.services.faults.add(
            Fault(Kind.THROTTLE, service="secretsmanager", operation="POST", times=2, chance=0.5)
        )
        with kills(pipeline, "MeterConsumerName", 4, chance):  # fewer than a batch is tried
            for first in range(0, 300, 20):
                emit(pipeline, first, first + 20)
        for mapping in pipeline.mappings:
            mapping.redeliver(1)
        emit(pipeline, 300, 301)
        pipeline.settle()

        documents = [each["event"]["id"] for index in cluster.indices.values() for each in index.values()]
        assert Counter(documents) == Counter(f"r{number}" for number in range(301))
        assert target_of(pipeline).store().count() == 301
        # The records' consumer alone keeps the broken lines.
        assert quarantined(pipeline) == {"unparseable": 16}


def problems(pipeline: Pipeline) -> list[tuple[str, str]]:
    return [(each.problem, each.fix) for each in examine(target_of(pipeline), [search_cluster])]


def test_the_doctor_asks_the_cluster(tmp_path: Path) -> None:
    with (
        closing(Cluster("opensearch")) as cluster,
        Pipeline(apps(tmp_path, cluster), in_process=True) as pipeline,
    ):
        secrets = pipeline.client("secretsmanager")
        cluster.templates = {"tagline": shipped("opensearch", "template")}
        assert problems(pipeline) == []

        cluster.templates.clear()
        ((problem, fix),) = problems(pipeline)
        assert ("no index template" in problem, fix) == (True, "docs/how-to/search-cluster.md")

        cluster.answers.append(404)
        ((problem, fix),) = problems(pipeline)
        assert ("answers 404 to a bulk request" in problem, "set SearchUrl" in fix) == (True, True)

        cluster.authorizations.clear()
        ((problem, fix),) = problems(pipeline)
        assert f"refuses the key of {KEY_ARN}: 401" in problem
        assert fix.startswith("put a valid key there")

        secrets.put_secret_value(SecretId="search-key", SecretString="two\nlines")
        ((problem, fix),) = problems(pipeline)
        assert ("holds no key" in problem, "Authorization" in fix) == (True, True)

        secrets.delete_secret(SecretId="search-key")
        ((problem, fix),) = problems(pipeline)
        assert ("cannot be checked" in problem, fix) == (True, "use credentials that may read it")
        assert cluster.indices == {}
