"""The emitter beside what else writes a line: ratios from rounds in which all take their turn, in one run.

Every candidate says the same 21 fields, of which twelve are numbers and two are objects, in the environment
of a Lambda function, and writes to the runtime client's stdout over /dev/null. What counts is the processor
time of this process: what waits, as sending to SQS does, is compared without its waiting. A ratio is the
median over the rounds of the ratio within a round, and then over five processes: one process's layout in
memory changes some ratios by a tenth. What is not installed is left out.
"""

import contextlib
import datetime as dt
import importlib
import io
import ipaddress
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tagline
from tagline import Emitter

EMITTER = str(Path(tagline.__file__).parents[1])
ROUNDS = 41
# How long one candidate's turn takes, about.
TURN_S = 0.004
PROCESSES = 5
IMPORTS = 21

FIELDS: dict[str, Any] = {
    "route": "/pets/{id}/visits",
    "method": "GET",
    "tenant": "t-0042",
    "country": "DE",
    "path": "/pets/4711/visits",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0",
    "request_id": "8f5ac1b8-4f5a-4d0c-8f5d-0c1b84f5a4d0",
    "params": {
        "page": 3,
        "limit": 50,
        "sort": "name",
        "q": "a small dog that is good with cats",
        "lang": "de",
    },
    "plan": {"name": "gold", "since": "2024-03-01", "seats": 25, "trial": False, "account": "acme-corp-17"},
    "status": 200,
    "duration_ms": 12.345,
    "auth_ms": 1.21,
    "db_ms": 7.704,
    "render_ms": 2.5,
    "queue_ms": 0.125,
    "items": 3,
    "retries": 0,
    "memory_mb": 256,
    "remaining_ms": 2871,
    "bytes_in": 512,
    "bytes_out": 20480,
}
METRICS = {name: "Milliseconds" if name.endswith("_ms") else "Count" for name in list(FIELDS)[-12:]}
DIMENSIONS = ("route", "method", "tenant", "country")
# Values for which more has to be looked at; each is measured as a further field.
UNUSUAL: dict[str, Any] = {"colon": "a: b", "list": [1, 2], "masked": "x", "nan": math.nan, "cycle": {}}
UNUSUAL["cycle"]["cycle"] = UNUSUAL["cycle"]
PROPERTIES = {name: FIELDS[name] for name in FIELDS if name not in METRICS and name not in DIMENSIONS}
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
LAMBDA = {
    "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
    "AWS_LAMBDA_FUNCTION_NAME": "pets",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/pets",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2025/11/20/[$LATEST]9a41f2c7b61e4a0d8f5d0c1b84f5a4d0",
    "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
}
INVOCATION = {
    "routeKey": "GET /pets/{id}",
    "rawPath": "/pets/4711",
    "requestContext": {"http": {"method": "GET"}},
    "headers": {f"x-header-{number}": "value" for number in range(12)},
}


def run() -> dict[str, float]:
    """Return how many times as long as the emitter's full record each of the others takes, and more.

    `vs_json_dumps` is the other way round: the emitter's time over that of `json.dumps` and one write.
    `with_metrics_vs_...` is of a record that has the metrics' envelope as well, to the same effect;
    `with_colon` and so on are of one that has such a value, over the record without it.
    """
    command = [sys.executable, "-m", __name__]
    printed = [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(PROCESSES)]
    numbers: list[dict[str, float]] = [json.loads(text) for text in printed]
    return {
        **{name: statistics.median(each[name] for each in numbers) for name in numbers[0]},
        **imports(),
        "broken_lines_threads": broken_lines(threads=8, lines=2_000, processes=1, size=600),
        "broken_lines_processes": broken_lines(threads=1, lines=2_000, processes=4, size=600),
        "broken_lines_long": broken_lines(threads=1, lines=500, processes=4, size=6_000),
    }


def compared() -> dict[str, float]:
    """Return how all compare in this process."""
    stdout = sys.stdout
    with open(os.devnull, "w") as null, sqs_queue() as send:  # noqa: PTH123 - a device
        sys.stdout = lambda_stdout(null)
        os.environ.update(LAMBDA)
        try:
            return ratios(candidates(send))
        finally:
            sys.stdout = stdout


def lambda_stdout(stream: Any) -> Any:
    """Return what Lambda's runtime client makes of stdout: a flush after every write."""
    from awslambdaric.bootstrap import Unbuffered

    return Unbuffered(stream)


def candidates(send: Callable[[str], Any]) -> dict[str, Callable[[], Any]]:
    """Return what is measured by name: `emit` is the emitter, and each other one says the same."""
    emitter, with_metrics = (
        Emitter(),
        Emitter(metrics=METRICS, namespace="Shop", dimensions=[DIMENSIONS]),
    )
    whole = json.loads(line_of(emitter))

    def dumped() -> None:
        sys.stdout.write(json.dumps(whole) + "\n")

    class Context:
        aws_request_id = FIELDS["request_id"]
        function_name = "pets"
        function_version = "7"
        memory_limit_in_mb = "256"

        def get_remaining_time_in_millis(self) -> int:
            return 30_000

    recorded, bare, context = emitter.handler(answer), answer, Context()
    found: dict[str, Callable[[], Any]] = {
        "emit": lambda: emitter.emit(FIELDS),
        "emit_metrics": lambda: with_metrics.emit(FIELDS),
        "handler": lambda: recorded(INVOCATION, context),
        "handler_bare": lambda: bare(INVOCATION, context),
        **{f"emit_{name}": partial(emitter.emit, unusual(name)) for name in UNUSUAL},
        "json_dumps": dumped,
        "sqs_send": lambda: send(json.dumps(whole)),
    }
    for name, maker in PEERS.items():
        with contextlib.suppress(ImportError):
            found[name] = maker()
    return found


def answer(_event: Any, _context: Any) -> dict[str, int]:
    """Answer as a handler does that does nothing."""
    return {"statusCode": 200}


def unusual(name: str) -> dict[str, Any]:
    """Return the fields with one more, whose value is unusual; that of `masked` has a name to be masked."""
    return {**FIELDS, "password" if name == "masked" else "more": UNUSUAL[name]}


def line_of(emitter: Emitter) -> str:
    """Return the line of the fields."""
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        emitter.emit(FIELDS)
        return sys.stdout.getvalue()
    finally:
        sys.stdout = stdout


def powertools_logger() -> Callable[[], Any]:
    """Say the fields by Powertools Logger."""
    from aws_lambda_powertools import Logger

    logger = Logger(service="pets", stream=sys.stdout)
    extra = {"_tag": "usage_record", **FIELDS}
    return lambda: logger.info("request", extra=extra)


def powertools_metrics() -> Callable[[], Any]:
    """Say the metrics, their dimensions and the other fields as metadata by Powertools Metrics."""
    from aws_lambda_powertools.metrics import EphemeralMetrics

    def say() -> None:
        metrics = EphemeralMetrics(namespace="Shop", service="pets")
        for name in DIMENSIONS:
            metrics.add_dimension(name, FIELDS[name])
        for name, unit in METRICS.items():
            metrics.add_metric(name, unit, FIELDS[name])
        for name, value in PROPERTIES.items():
            metrics.add_metadata(name, value)
        metrics.flush_metrics()

    return say


def embedded_metrics() -> Callable[[], Any]:
    """Say the same by aws-embedded-metrics as its README does in a handler."""
    scope = importlib.import_module("aws_embedded_metrics").metric_scope
    dimensions = {name: FIELDS[name] for name in DIMENSIONS}

    @scope  # type: ignore[misc, untyped-decorator, unused-ignore]  # it comes without types
    def say(metrics: Any) -> None:
        metrics.set_namespace("Shop")
        metrics.set_dimensions(dimensions)
        for name, unit in METRICS.items():
            metrics.put_metric(name, FIELDS[name], unit)
        for name, value in PROPERTIES.items():
            metrics.set_property(name, value)

    said: Callable[[], Any] = say
    return said


PEERS: dict[str, Callable[[], Callable[[], Any]]] = {
    "powertools_logger": powertools_logger,
    "powertools_metrics": powertools_metrics,
    "embedded_metrics": embedded_metrics,
}


QUEUE = """
import ssl, sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # One packet for head and body: else the client waits for its acknowledgement of the first.

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"MessageId":"1"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


server = HTTPServer(("127.0.0.1", 0), Answers)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def sqs_queue() -> Any:
    """Give what sends a message to a queue whose server is another process here, and answers at once.

    Over TLS and on one connection, as a warm function sends to SQS.
    """
    import boto3

    with tempfile.NamedTemporaryFile(suffix=".pem") as identity:
        identity.write(key_and_certificate())
        identity.flush()
        command = [sys.executable, "-c", QUEUE, identity.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            url = f"https://127.0.0.1:{int(server.stdout.readline())}"
            keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
            client = boto3.client("sqs", "us-east-1", endpoint_url=url, verify=identity.name, **keys)
            queue = f"{url}/123456789012/queue"
            try:
                yield lambda body: client.send_message(QueueUrl=queue, MessageBody=body)
            finally:
                client.close()
                server.terminate()


def key_and_certificate() -> bytes:
    """Return a key and a certificate of 127.0.0.1 for an hour, as SQS has them: RSA with 2,048 bits."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem)


def ratios(named: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Let all take turns, in another order each round, and return how they compare."""
    calls = {name: max(1, round(TURN_S / once(function))) for name, function in named.items()}
    times: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(ROUNDS):
        for name in random.sample(sorted(named), len(named)):
            function, number = named[name], calls[name]
            began = time.process_time()
            for _ in range(number):
                function()
            times[name].append((time.process_time() - began) / number)

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))

    compared = {
        "vs_json_dumps": ("emit", "json_dumps"),
        **{f"vs_{name}": (name, "emit") for name in (*PEERS, "sqs_send")},
        **{
            f"with_metrics_vs_{name}_metrics": (f"{name}_metrics", "emit_metrics")
            for name in ("powertools", "embedded")
        },
        **{f"with_{name}": (f"emit_{name}", "emit") for name in UNUSUAL},
    }
    # A peer may not be installed.
    numbers = {name: ratio(*pair) for name, pair in compared.items() if times.keys() >= set(pair)}
    numbers["emit_us"] = min(times["emit"]) * 1e6
    numbers["handler_us"] = (min(times["handler"]) - min(times["handler_bare"])) * 1e6
    numbers["line_bytes"] = len(line_of(Emitter())) - 1
    return numbers


def once(function: Callable[[], Any]) -> float:
    """Return how much processor time a call takes, in seconds, when it is warm."""
    for _ in range(20):
        function()
    began = time.process_time()
    for _ in range(20):
        function()
    return (time.process_time() - began) / 20


IMPORT = """
import sys, time
import awslambdaric.bootstrap

before = set(sys.modules)
began = time.perf_counter()
import tagline

took = time.perf_counter() - began
with tagline.Emitter(stream=open("/dev/null", "w")).collect():
    pass
added = {name for name in set(sys.modules) - before if name.partition(".")[0] != "tagline"}
stdlib = {name for name in added if name in sys.stdlib_module_names}
print(took * 1000, len(added - stdlib), len(stdlib))
"""


def imports() -> dict[str, float]:
    """Import the emitter in fresh processes that have Lambda's runtime client, from compiled files.

    `modules_added` are those of other distributions; the standard library's are counted apart.
    """
    where = {**os.environ, **LAMBDA, "PYTHONPATH": EMITTER}
    where.pop("PYTHONDONTWRITEBYTECODE", None)
    printed = [
        subprocess.run([sys.executable, "-c", IMPORT], env=where, check=True, capture_output=True, text=True)
        for _ in range(IMPORTS)
    ]
    took, added, stdlib = zip(*(each.stdout.split() for each in printed), strict=True)
    return {
        "modules_added": max(map(int, added)),
        "stdlib_modules_added": max(map(int, stdlib)),
        "import_ms": statistics.median(map(float, took[1:])),
    }


LINES = """
import os, sys, threading
from tagline import Emitter

threads, lines, processes, size = map(int, sys.argv[1:])
for _ in range(processes - 1):
    if os.fork() == 0:
        break
emitter = Emitter(max_line_bytes=200_000)


def work():
    for number in range(lines):
        emitter.emit({"number": number, "text": "x" * size})


running = [threading.Thread(target=work) for _ in range(threads)]
for thread in running:
    thread.start()
for thread in running:
    thread.join()
"""


def broken_lines(*, threads: int, lines: int, processes: int, size: int) -> float:
    """Return how many of the lines that threads or processes write to one pipe are missing or no JSON.

    They write as they do in a container, and the reader is slower than they are.
    """
    reading, writing = os.pipe()
    arguments = map(str, (threads, lines, processes, size))
    process = subprocess.Popen(
        [sys.executable, "-c", LINES, *arguments], env={"PYTHONPATH": EMITTER}, stdout=writing
    )
    os.close(writing)
    pieces = []
    while piece := os.read(reading, 8_000):
        pieces.append(piece)
        time.sleep(0.0001)
    os.close(reading)
    process.wait()
    whole = set()
    for line in b"".join(pieces).splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            whole.add((record["_src"], record["_seq"]))
    return threads * lines * processes - len(whole)


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(compared()))
