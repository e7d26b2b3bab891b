"""Row 24: schemathesis asks the whole HTTP API what its OpenAPI document allows and what it does not.

Each answer must be one that the document has: status, content type, headers, body; what the document forbids is to be
refused, and who has no token too. The log of all that is searched for the tokens and keys that were sent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from broker.auth.apikey import line_of, new_key
from broker.events.openapi import openapi_document
from tests.access.visitor import SECRET, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, head
from tests.faults.row import Row
from tests.faults.stage import Stage

SECONDS = 60  # with tokens, and as many without
# A stream has no end: its first event is its answer.
SETTINGS = """
max-stream-events = 1
request-timeout = 10.0
warnings = false
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx"]
[checks.unsupported_method]
enabled = false  # who may not send a body is answered 401, and not 405, before it is read
[[operations]]
include-path = "/ws"  # a WebSocket is not in HTTP's power
checks.positive_data_acceptance.enabled = false
[[operations]]
include-path = "/api/stream"  # `since` has to name one of the channels: no schema says that
checks.positive_data_acceptance.enabled = false
[[operations]]
include-path = "/api/publish"  # an Idempotency-Key that was used for something else is answered 422
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 422, 429, 503]
[[operations]]
# The id in the query is not read where the header is there.
include-path-regex = "^/api/stream/(council-score|evaluate-creative)"
include-method = "GET"
checks.negative_data_rejection.enabled = false
[[operations]]
include-path-regex = "evaluationId"  # so has a last event id its evaluation
checks.positive_data_acceptance.enabled = false
"""
# Every boundary of every parameter takes some seconds: in small it is done to a few operations, others each time.
WITHOUT_COVERAGE = """
[[operations]]
include-operation-id = {ids}
phases.coverage.enabled = false
"""
COVERED = 2
WITH_KEY = """
[[operations]]
include-path-regex = "^/(metrics|api/(publish|realtime/[^e]))"
headers = {{ Authorization = "Bearer {key}" }}
[[operations]]
include-path-regex = "^/(ws|api/(stream|realtime/explain))"
headers = {{ Authorization = "Bearer {token}" }}
"""
LOGGED = ("--log-requests", "on", "--log-level", "debug")
ROOM = ("--limits-connects-per-second-per-ip", "0", "--evaluations-pending-max", "100000")


def play(stage: Stage) -> None:
    redis_url = stage.redis().url
    key, text = new_key("ci"), token(user="somebody", seconds=3600, subscribe=["*"])
    environ = {"BROKER_AUTH_SECRET": SECRET, "BROKER_AUTH_ADMIN_KEYS": line_of(key)}
    guarded = stage.daemon(redis_url, *LOGGED, *ROOM, environ=environ)
    daemons = [guarded]
    reports = [
        asked(stage, guarded, WITH_KEY.format(key=key, token=text), "--generation-with-security-parameters=false")
    ]
    if stage.is_full:
        daemons.append(stage.daemon(redis_url, *LOGGED, *ROOM))
        reports.append(asked(stage, daemons[1], "", "--exclude-checks=ignored_auth"))
    sent = (key, text, token(secret="another secret that is longer than 32 bytes"), token(seconds=-5))
    leaks = sum(leak(guarded, secret) for secret in sent)
    outcomes = Counter(outcome for daemon in daemons for outcome in outcomes_of(daemon))

    stage.at_least("operations", min(report["operations"]["tested"] for report in reports), len(operations()))
    # How many schemathesis makes in its time is its own affair, and the machine's; the least is what a busy one made.
    stage.at_least("requests", outcomes.total(), stage.pick(1000, 60))
    stage.at_least("of them answered 200", outcomes["200"], stage.pick(200, 8))
    failures = [failure for report in reports for failure in (*report["failures"], *report["errors"])]
    stage.faults += [json.dumps(failure) for failure in failures]
    stage.exactly("answers that the document does not have", len(failures), 0)
    # The document has 503 for a daemon that is full, stops, or has no Redis: this one is and does none of that.
    server_errors = sum(count for outcome, count in outcomes.items() if outcome[:1] == "5" and outcome != "503")
    stage.exactly("answers of 5xx, but 503", server_errors, 0)
    stage.exactly("answers of 503", outcomes["503"], 0)
    stage.at_least("secrets sent where they may leak", leaks, 40)
    stage.exactly("lines of the log with a secret", sum(lines_with(d, (*sent, SECRET)) for d in daemons), 0)


def asked(stage: Stage, daemon: DaemonProcess, settings: str, *flags: str) -> Any:
    """A run of schemathesis. Returns its report."""
    folder = stage.folder / f"api-{daemon.port}"
    folder.mkdir()
    (folder / "openapi.json").write_text(json.dumps(openapi_document()))
    if not stage.is_full:
        ids = operations()
        stage.dice.shuffle(ids)
        settings += WITHOUT_COVERAGE.format(ids=json.dumps(ids[COVERED:]))
    (folder / "schemathesis.toml").write_text(SETTINGS + settings)
    lasts = stage.pick(
        ("--phases=coverage,fuzzing,stateful", f"--max-time={SECONDS}", "--continue-on-failure"),
        ("--phases=coverage,fuzzing", "--max-examples=1", "--no-shrink"),
    )
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", "schemathesis.toml", "run", "openapi.json", "--url", daemon.url, "--no-color", *lasts]
    command += [f"--seed={stage.dice.randrange(1 << 32)}", "--generation-database=none", *flags]
    command += ["--report=json", "--report-json-path=report.json"]
    with open(folder / "schemathesis.log", "wb") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=SECONDS * 3)
    report = folder / "report.json"
    assert report.exists(), (folder / "schemathesis.log").read_text()[-2000:]
    return json.loads(report.read_text())


def operations() -> list[str]:
    return [each["operationId"] for methods in openapi_document()["paths"].values() for each in methods.values()]


def leak(daemon: DaemonProcess, secret: str) -> int:
    """Send a secret to wherever somebody may put one by mistake. Returns to how many places."""
    places = list(requests_with(secret))
    for line, more, body in places:
        length = (b"Content-Length: %d" % len(body),) if body else ()
        with RawClient.connect(daemon.port) as client:
            client.send(head(line.encode(), *(header.encode() for header in more), *length) + body)
            client.answer()
    return len(places)


def requests_with(secret: str) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
    for target in (
        f"/health?token={secret}",
        f"/api/stream?channel=a&%74oken={secret}",
        f"/api/stream?channel=a&token={quote(secret[:20])}&token={secret}",
        f"/api/stream?channel=a:{secret}",
        f"/api/stream/render-progress/{secret}",
        f"/api/realtime/stats?node={secret}",
        f"/api/realtime/explain?channel={secret}",
        f"/{secret}",
        f"/console/{secret}",
    ):
        yield f"GET {target} HTTP/1.1", (), b""
    for header in (
        f"Authorization: Bearer {secret}",
        f"Authorization: Basic {secret}",
        f"Authorization: {secret}",
        f"Authorization: Bearer {secret}{secret}",
        f"Cookie: token={secret}",
        f"Origin: https://{secret}",
        f"Last-Event-ID: {secret}",
        f"Idempotency-Key: {secret}",
    ):
        yield "POST /api/publish HTTP/1.1", (header,), json.dumps({"channel": secret, "event": {}}).encode()
        yield "GET /api/stream?channel=broker:x HTTP/1.1", (header,), b""


def requests_of(daemon: DaemonProcess) -> Iterator[dict[str, Any]]:
    for line in daemon.log().splitlines():
        entry = json.loads(line)
        if entry["event"] in ("request", "no request"):
            yield entry


def outcomes_of(daemon: DaemonProcess) -> Iterator[str]:
    """The status of each answer. A stream is noted as its client's end: it was answered 200."""
    for entry in requests_of(daemon):
        outcome = str(entry["outcome"])
        yield "200" if outcome.startswith("sse_") else outcome


def lines_with(daemon: DaemonProcess, secrets: tuple[str, ...]) -> int:
    """Lines that hold a secret, or the part of one that makes it one: the end of a key, the signature of a token."""
    parts = [secret[-20:] for secret in secrets]
    return sum(any(part in line for part in parts) for line in daemon.log().splitlines())


ROW = Row(
    24,
    "The HTTP API answers what its OpenAPI document says, whatever it is asked, and logs no token and no key",
    f"schemathesis for 2 minutes against every operation, {SECONDS} s with tokens and {SECONDS} s without "
    "authentication; every request logged, and the log searched",
    "no 5xx (503 neither, as Redis is there and the daemon has room), no answer that is not in the document, no secret "
    "in the log",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
