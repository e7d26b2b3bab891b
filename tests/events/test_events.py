"""Each event in both forms, the errors that people will see, and what the factories fill."""

from __future__ import annotations

import copy
import enum
import json
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker.errors import ChannelError, EventError
from broker.events import (
    EVENT_TYPES,
    AiStreamChunk,
    Alert,
    CampaignValues,
    CouncilScoreStream,
    Error,
    Heartbeat,
    JobProgress,
    Subscribed,
    check,
    decode,
)
from tests.events.examples import BY_TYPE, EXAMPLES, STAMP, Example

JOB: dict[str, Any] = {"job_id": "42", "status": "queued", "stage": "s", "progress": 0.0, "message": "m"}


def job(**changes: Any) -> JobProgress:
    return JobProgress(**JOB | changes)


def refusal_of(**changes: Any) -> str:
    with pytest.raises(EventError) as caught:
        job(**changes)
    return str(caught.value)


def wire_refusal(type: str, **changes: Any) -> str | None:
    """What `check` says to an example with these fields changed; with `...` a field is left out."""
    wire = BY_TYPE[type].whole_wire | changes
    payload = json.dumps({name: value for name, value in wire.items() if value is not ...}).encode()
    why = check(payload)
    if why is None:
        decode(payload)
    else:
        with pytest.raises(EventError) as caught:
            decode(payload)
        assert str(caught.value) == why
    return why


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.event_type.type)
class TestEveryEvent:
    def test_the_two_forms_are_the_same_event(self, example: Example) -> None:
        event = example.build()
        assert json.loads(event.encode()) == example.whole_wire
        assert decode(json.dumps(example.whole_wire)) == event
        assert check(event.encode()) is None
        assert EVENT_TYPES[example.event_type.type] is example.event_type

    def test_its_channel(self, example: Example) -> None:
        if example.channel is not None:
            assert example.build().channel == example.channel
        else:
            with pytest.raises(EventError) as caught:
                _ = example.build().channel
            assert str(caught.value) == (
                f"{example.event_type.type}: has no channel of its own; name one to publish it to"
            )

    def test_a_field_that_is_missing_is_named(self, example: Example) -> None:
        type = example.event_type.type
        for name in (*example.required, "timestamp"):
            assert wire_refusal(type, **{name: ...}) == f"{type}: {name} is missing"
        for name in example.wire.keys() - set(example.required):
            assert wire_refusal(type, **{name: ...}) is None
            assert wire_refusal(type, **{name: None}) is None

    def test_a_frozen_value(self, example: Example) -> None:
        event = example.build()
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            event.timestamp = STAMP  # type: ignore[misc]
        assert event == example.build()
        assert hash(event) == hash(example.build())
        assert event != attrs.evolve(event, timestamp="2027-01-01T00:00:00Z")
        assert event != attrs.evolve(event, extra={"more": 1})
        assert event == pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == attrs.evolve(event)
        assert repr(event).startswith(f"{type(event).__name__}({next(iter(example.arguments))}=")


def test_the_registry_is_the_table_of_the_contract() -> None:
    assert list(EVENT_TYPES) == [example.event_type.type for example in EXAMPLES]
    assert list(EVENT_TYPES) == [
        "job_progress", "video_render_progress", "ai_stream_chunk", "council_score_stream", "ai_evaluation_stream",
        "campaign_metrics", "ab_test_result", "live_metric_update", "alert", "evaluation_restarted", "complete",
        "connected", "authenticated", "token_expired", "disconnected", "error", "heartbeat",
        "subscribed", "unsubscribed", "published", "gap",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("type", "changes", "why"),
    [
        ("job_progress", {"status": "done"}, "status must be one of queued, processing, completed, failed, not 'done'"),
        ("job_progress", {"progress": 1.5}, "progress must be a number from 0 to 1, not 1.5"),
        ("job_progress", {"progress": -0.1}, "progress must be a number from 0 to 1, not -0.1"),
        ("job_progress", {"progress": True}, "progress must be a number from 0 to 1, not true"),
        ("job_progress", {"progress": "0.5"}, "progress must be a number from 0 to 1, not '0.5'"),
        ("job_progress", {"progress": None}, "progress must be a number from 0 to 1, not null"),
        ("job_progress", {"progress": 0}, None),
        ("job_progress", {"progress": 1}, None),
        ("job_progress", {"jobId": ""}, "jobId must be a string that is not empty, not ''"),
        ("job_progress", {"jobId": 42}, "jobId must be a string that is not empty, not 42"),
        ("job_progress", {"message": "x" * 5000}, None),
        ("job_progress", {"stage": ["x"] * 5000}, "stage must be a string, not a list"),
        ("job_progress", {"status": "x" * 5000},
         f"status must be one of queued, processing, completed, failed, not '{'x' * 80}...'"),
        ("job_progress", {"status": "\u2028"},
         "status must be one of queued, processing, completed, failed, not '\\u2028'"),
        ("job_progress", {"metadata": []}, "metadata must be an object, not a list"),
        ("job_progress", {"timestamp": "yesterday"},
         "timestamp must be a time such as 2026-01-31T12:00:00.000Z, not 'yesterday'"),
        ("job_progress", {"timestamp": "2026-01-31T12:00:00"},
         "timestamp must be a time such as 2026-01-31T12:00:00.000Z, not '2026-01-31T12:00:00'"),
        ("job_progress", {"timestamp": 1_700_000_000},
         "timestamp must be a time such as 2026-01-31T12:00:00.000Z, not 1700000000"),
        ("job_progress", {"timestamp": "2026-01-31T14:00:00+02:00"}, None),
        ("job_progress", {"timestamp": "2026-01-31T12:00:00Z"}, None),
        ("job_progress", {"id": 7}, "id must be a string, not 7"),
        ("video_render_progress", {"currentFrame": 1.5}, "currentFrame must be an integer, not 1.5"),
        ("video_render_progress", {"progress": 2}, "progress must be a number from 0 to 1, not 2"),
        ("video_render_progress", {"stage": "done"},
         "stage must be one of preparing, rendering, encoding, uploading, complete, not 'done'"),
        ("ai_stream_chunk", {"isComplete": 1}, "isComplete must be true or false, not 1"),
        ("ai_stream_chunk", {"model": ""}, "model must be a string that is not empty, not ''"),
        ("ai_stream_chunk", {"model": "a new one"}, None),
        ("ai_stream_chunk", {"metadata": {}}, None),
        ("ai_stream_chunk", {"metadata": {"tokensUsed": "7"}}, "metadata.tokensUsed must be an integer, not '7'"),
        ("council_score_stream", {"stage": "aggregating"}, None),
        ("council_score_stream", {"score": 101}, None),
        ("council_score_stream", {"error": "its provider refused the key (HTTP 401)"}, None),
        ("council_score_stream", {"error": {"code": 401}}, "error must be a string, not an object"),
        ("council_score_stream", {"finalScore": {"composite": 1, "psychology": {}}},
         "finalScore.psychology.composite is missing"),
        ("ai_evaluation_stream", {"evaluationType": "nice"},
         "evaluationType must be one of creative, technical, performance, not 'nice'"),
        ("campaign_metrics", {"metrics": {"clicks": "12"}}, "metrics.clicks must be an integer, not '12'"),
        ("campaign_metrics", {"change": 5}, "change must be an object, not 5"),
        ("campaign_metrics", {"change": {}}, "change.impressions is missing"),
        ("live_metric_update", {"entityType": "user"},
         "entityType must be one of campaign, ad, variant, creative, not 'user'"),
        ("alert", {"severity": "fatal"}, "severity must be one of info, warning, critical, not 'fatal'"),
        ("alert", {"category": "x"}, "category must be one of performance, budget, technical, policy, not 'x'"),
        ("alert", {"actions": [{"label": "a", "action": "b"}, {"label": "a", "action": None}]},
         "actions[1].action must be a string, not null"),
        ("alert", {"actions": {}}, "actions must be a list, not an object"),
        ("error", {"message": None, "error": "what SSE says"}, None),
        ("error", {"message": None}, "message is missing"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_with_its_path_and_value(type: str, changes: dict[str, Any], why: str | None) -> None:
    assert wire_refusal(type, **changes) == (why and f"{type}: {why}")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"[]", "an event must be an object, not a list"),
        (b"null", "an event must be an object, not null"),
        (b"{}", "type is missing"),
        (b'{"type":"shout"}', "type must be the type of an event, such as job_progress, not 'shout'"),
        (b'{"type":["job_progress"]}', "type must be the type of an event, such as job_progress, not a list"),
        (b'{"type":"%s"}' % (b"x" * 9000),
         f"type must be the type of an event, such as job_progress, not '{'x' * 80}...'"),
    ],
)  # fmt: skip
def test_what_is_no_event_at_all(payload: bytes, why: str) -> None:
    assert check(payload) == why
    with pytest.raises(EventError) as caught:
        decode(payload)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b'{"type":"disconnected","message":"\xff"}',
        b'{"type":"disconnected","message":"a","timestamp":"2026-01-31T12:00:00Z","x":"\xff"}',
        b'{"type":"disconnected","message":"\\ud800"}',
        b"[" * 500_000,
        b'{"type":"disconnected","x":' + b"[" * 500_000,
        b'{"type":"disconnected","message":NaN}',
        b'{"type":"disconnected","message":%s}' % (b"9" * 5000),
        b"\xef\xbb\xbf{}",
        '{"type":"disconnected"}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_says_so(payload: bytes) -> None:
    why = check(payload)
    assert why is not None
    assert why.startswith("not JSON that can be read: ")
    assert len(why) < 200
    with pytest.raises(EventError, match="not JSON that can be read: "):
        decode(payload)


def test_half_a_surrogate_pair_in_text() -> None:
    with pytest.raises(EventError, match="not JSON that can be read: "):
        decode('{"type":"disconnected","message":"\ud800"}')


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "done"}, "status must be one of queued, processing, completed, failed, not 'done'"),
        ({"progress": 1.01}, "progress must be a number from 0 to 1, not 1.01"),
        ({"progress": float("nan")}, "progress must be a finite number, not nan"),
        ({"progress": float("-inf")}, "progress must be a finite number, not -inf"),
        ({"progress": True}, "progress must be a number from 0 to 1, not true"),
        ({"progress": "1"}, "progress must be a number from 0 to 1, not '1'"),
        ({"job_id": ""}, "job_id must be a string that is not empty, not ''"),
        ({"job_id": 42}, "job_id must be a string that is not empty, not 42"),
        ({"job_id": None}, "job_id is missing"),
        ({"stage": b"s"}, "stage must be a string, not a value of type bytes"),
        ({"message": "\ud800"}, "message must be text that has a UTF-8 form, not '\\ud800'"),
        ({"timestamp": datetime.now(UTC)},
         "timestamp must be a time such as 2026-01-31T12:00:00.000Z, not a value of type datetime"),
        ({"metadata": 5}, "metadata must be an object, not 5"),
        ({"metadata": {"at": [datetime.now(UTC)]}},
         "metadata.at[0] must be a JSON value, not a value of type datetime"),
        ({"metadata": {"a": {"b": float("nan")}}}, "metadata.a.b must be a finite number, not nan"),
        ({"metadata": {1: 2}}, "metadata must have strings as names, not 1"),
        ({"extra": {"jobId": "43"}}, "extra has jobId, which is declared: use its own argument"),
        ({"extra": {"type": "alert"}}, "extra has type, which is declared: use its own argument"),
        ({"extra": [1]}, "extra must be an object, not a list"),
    ],
)  # fmt: skip
def test_what_the_factory_refuses(changes: dict[str, Any], why: str) -> None:
    assert refusal_of(**changes) == f"job_progress: {why}"


def test_nesting_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert refusal_of(metadata={"x": endless}).endswith("... is nested deeper than 100")


def test_an_object_inside_is_checked_on_its_own() -> None:
    with pytest.raises(EventError) as caught:
        CampaignValues(impressions=1, clicks=1.5, ctr=0, spend=0, conversions=0, roas=0)  # type: ignore[arg-type]
    assert str(caught.value) == "CampaignValues: clicks must be an integer, not 1.5"
    with pytest.raises(EventError) as caught:
        CouncilScoreStream(stage="complete", is_complete=True, final_score={"composite": 1})  # type: ignore[arg-type]
    assert str(caught.value) == "council_score_stream: final_score must be a FinalScore, not an object"


def test_an_argument_is_called_what_the_constructor_calls_it() -> None:
    for given in ("", 42, None):
        with pytest.raises(EventError, match=r"^subscribed: channel (must be a string that is not empty|is missing)"):
            Subscribed(channel=given, success=True)  # type: ignore[arg-type]
    with pytest.raises(EventError) as caught:
        Heartbeat(server_time="noon")
    assert str(caught.value) == "heartbeat: server_time must be a time such as 2026-01-31T12:00:00.000Z, not 'noon'"


def test_why_a_model_failed() -> None:
    event = CouncilScoreStream(stage="gpt4", model="gpt4", reasoning="busy", error="busy", is_complete=True)
    assert json.loads(event.encode()) == {
        "type": "council_score_stream", "stage": "gpt4", "model": "gpt4", "reasoning": "busy", "error": "busy",
        "isComplete": True, "timestamp": event.timestamp,
    }  # fmt: skip
    assert decode(event.encode()) == event
    assert (event.error, event.extra) == ("busy", {})


def test_values_that_say_the_same_are_made_plain() -> None:
    class Status(enum.StrEnum):
        FAILED = "failed"

    given = {"list": (1, Fraction(1, 2)), "on": Status.FAILED}
    event = job(status=Status.FAILED, progress=1, metadata=given)
    assert (type(event.status), type(event.progress)) == (str, float)
    assert event.metadata == {"list": [1, 0.5], "on": "failed"}
    given.clear()
    assert event.metadata != given


def test_a_number_that_json_wrote_without_a_point() -> None:
    event = decode(json.dumps(BY_TYPE["job_progress"].whole_wire | {"progress": 1}))
    assert isinstance(event, JobProgress)
    assert (type(event.progress), event.progress) == (float, 1.0)


def test_unknown_fields_are_kept_at_every_depth() -> None:
    wire = BY_TYPE["council_score_stream"].whole_wire | {"mood": {"a": [None]}, "snake_case": 10**30}
    wire["finalScore"] = wire["finalScore"] | {"note": "kept"}
    event = decode(json.dumps(wire))
    assert isinstance(event, CouncilScoreStream)
    assert event.final_score is not None
    assert event.extra == {"mood": {"a": [None]}, "snake_case": 10**30}
    assert event.final_score.extra == {"note": "kept"}
    assert json.loads(event.encode()) == wire
    assert json.loads(job(extra={"error": "x"}).encode())["error"] == "x"


def test_what_the_factories_fill() -> None:
    before = datetime.now(UTC).timestamp()
    event = job()
    after = datetime.now(UTC).timestamp()
    assert len(event.timestamp) == len(STAMP)
    assert event.timestamp.endswith("Z")
    assert before - 0.001 <= datetime.fromisoformat(event.timestamp).timestamp() <= after
    assert event.id is not None
    stem, _, milliseconds = event.id.partition("-")[0].rpartition("_")
    assert stem == "job_42"
    assert before - 0.001 <= int(milliseconds) / 1000 <= after + 0.1
    chunk = AiStreamChunk(model="claude", chunk="", is_complete=False)
    assert (chunk.id or "").startswith("ai_claude_1")
    alert = Alert(severity="info", category="policy", title="t", message="m", action_required=False)
    assert (alert.id or "").startswith("alert_1")
    assert alert.alert_id == alert.id
    assert BY_TYPE["heartbeat"].build().id is None


def test_a_missing_argument_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="job_id"):
        JobProgress(status="queued", stage="s", progress=0, message="m")  # type: ignore[call-arg]


def test_an_id_that_a_channel_cannot_have() -> None:
    event = job(job_id="a b")
    with pytest.raises(ChannelError, match="has a character that is not allowed"):
        _ = event.channel
    with pytest.raises(ChannelError):
        _ = job(job_id="42:user_1").channel


def test_the_two_forms_of_an_error() -> None:
    said = {"type": "error", "error": "Missing required parameters: videoUrl", "timestamp": STAMP}
    event = decode(json.dumps(said))
    assert isinstance(event, Error)
    assert (event.message, event.code) == ("Missing required parameters: videoUrl", None)


def test_the_channel_that_was_subscribed_to_is_not_where_the_answer_is_published() -> None:
    event = Subscribed(channel="alerts", success=True)
    assert event.subscribed_type == "alerts"
    assert json.loads(event.encode())["channel"] == "alerts"


def test_an_open_object_that_was_spoilt_later() -> None:
    event = job(metadata={"a": 1})
    assert isinstance(event.metadata, dict)
    event.metadata["a"] = object()
    with pytest.raises(EventError, match="job_progress: cannot be JSON: "):
        event.encode()


def test_importing_loads_nothing_that_a_service_does_not_need() -> None:
    code = (
        "import sys; before = set(sys.modules); import broker.events\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(sorted(loaded - {'typing_extensions'}))"  # msgspec looks whether it is there
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "['attr', 'attrs', 'broker', 'msgspec']\n"


def test_a_type_checker_sees_wrong_arguments(tmp_path: Path) -> None:
    code = (
        "from broker.events import JobProgress\n"
        "a = JobProgress(job_id='1', status='done', stage='s', progress=0, message='m')\n"
        "b = JobProgress(job_id='1', status='failed', stage='s', progress=0)\n"
        "a.progress = 1\n"
        "c = JobProgress(job_id='1', status='failed', stage='s', progress=0, message='m')\n"
    )
    # Of no settings: the project's own name its files, and mypy wants files or a program, not both.
    flags = ["--config-file=", "--cache-dir", str(tmp_path), "--strict", "--no-error-summary"]
    done = subprocess.run([sys.executable, "-m", "mypy", *flags, "-c", code], capture_output=True, text=True)
    found = [(line.split(":")[1], line.rpartition("[")[2]) for line in done.stdout.splitlines() if "error:" in line]
    assert found == [("2", "arg-type]"), ("3", "call-arg]"), ("4", "misc]")]
