"""The AsyncAPI document is one, and says what the daemon's own code takes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import hypothesis
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from broker import __version__
from broker.auth.identity import ANONYMOUS, Identity
from broker.auth.rules import RuleBook
from broker.channel import Channel
from broker.cli import group
from broker.config.access import Rules
from broker.errors import ChannelError
from broker.events import EVENT_TYPES
from broker.events.asyncapi import asyncapi_document
from broker.inquiry import PATHS, InquiryRefused, inquiry_from_query
from broker.request import RequestRefused
from broker.session import Authenticate, Reply, Session
from broker.stream import stream_of
from broker.submission import submission_of
from tests.events.examples import BY_TYPE, EXAMPLES, STAMP

with warnings.catch_warnings():
    # Its models have fields called `schema`, which pydantic warns of.
    warnings.simplefilter("ignore")
    from asyncapi3.models.asyncapi import AsyncAPI3

DOCUMENT = asyncapi_document()
CHANNELS = DOCUMENT["channels"]
OPERATIONS = DOCUMENT["operations"]
OF_EVENTS = {name: channel for name, channel in CHANNELS.items() if not channel["address"].startswith("/")}
LAST = ["Error", "TokenExpired", "ServerShutdown"]
# What is no event of the registry, as it is sent.
PLAIN = {
    "Subscribe": {"type": "subscribe", "channel": "alerts:u1"},
    "Unsubscribe": {"type": "unsubscribe", "channel": {"type": "alerts", "id": None, "userId": "u1"}},
    "Authenticate": {"type": "authenticate", "token": "t"},
    "Publish": {"type": "publish", "channel": "a:1", "event": {"type": "x"}},
    "Ping": {"type": "ping"},
    "Pong": {"type": "pong", "timestamp": STAMP},
    "ServerShutdown": {"type": "server_shutdown", "message": "Server is shutting down", "timestamp": STAMP},
    "EvaluationConnected": {**BY_TYPE["connected"].whole_wire, "evaluationId": "0" * 32},
    "Submission": {"channel": "a:1", "event": {"type": "x"}},
    "SubmissionTaken": {"published": 1},
    "Refusal": {"error": "Bad Request", "detail": "d", "hint": "h"},
}
PARTS = st.text(st.sampled_from("aZ9_-.@=+~"), min_size=1, max_size=3)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(":".join)
TEXT = NAMES | st.text(st.sampled_from("aZ9:_-.@=+~ /é\x00"), max_size=8) | st.sampled_from(["a" * 128, "a" * 129])
ANYTHING = st.none() | st.integers() | TEXT | st.lists(TEXT, max_size=2)
CHANNEL = ANYTHING | st.dictionaries(
    st.sampled_from(["type", "id", "userId", "more"]), st.none() | TEXT | st.integers()
)


def validator(schema: str) -> Draft7Validator:
    """AsyncAPI's own dialect is a superset of draft 7."""
    components = DOCUMENT["components"]
    Draft7Validator.check_schema(components["schemas"][schema])
    return Draft7Validator({"$ref": f"#/components/schemas/{schema}", "components": components})


def servers_of(channel: Mapping[str, Any]) -> list[str]:
    return [each["$ref"].removeprefix("#/servers/") for each in channel["servers"]]


def messages_of(operation: Mapping[str, Any]) -> list[str]:
    return [each["$ref"].rpartition("/")[2] for each in operation["messages"]]


class TestTheDocument:
    def test_a_validator_takes_it(self) -> None:
        done = CliRunner().invoke(group, ["schema", "--asyncapi"])
        assert (done.exit_code, json.loads(done.output)) == (0, DOCUMENT)
        assert (DOCUMENT["asyncapi"], DOCUMENT["info"]["version"]) == ("3.0.0", __version__)
        AsyncAPI3.model_validate(DOCUMENT)

    def test_the_validator_sees_what_is_wrong(self) -> None:
        # So that the test above is known to be able to fail.
        document = json.loads(json.dumps(DOCUMENT))
        document["operations"]["receive_alerts"]["action"] = "listen"
        with pytest.raises(ValueError, match="listen"):
            AsyncAPI3.model_validate(document)

    def test_every_reference_leads_somewhere(self) -> None:
        references = list(_references(DOCUMENT))
        assert len(references) > 300
        for reference in references:
            found: Any = DOCUMENT
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]

    def test_every_message_and_schema_is_referred_to(self) -> None:
        references = set(_references(DOCUMENT))
        for kind in ("messages", "schemas"):
            assert {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} <= references

    def test_each_operation_is_about_messages_of_its_channel(self) -> None:
        for operation in OPERATIONS.values():
            channel = operation["channel"]["$ref"]
            about = [*operation["messages"], *operation.get("reply", {"messages": []})["messages"]]
            assert {each["$ref"].rpartition("/messages/")[0] for each in about} == {channel}

    def test_payloads_are_the_schemas_of_the_messages(self) -> None:
        messages = DOCUMENT["components"]["messages"]
        assert set(messages) == {example.event_type.__name__ for example in EXAMPLES} | set(PLAIN)
        for name, message in messages.items():
            wire = PLAIN[name] if name in PLAIN else BY_TYPE[message["name"]].whole_wire
            assert message["payload"] == {"$ref": f"#/components/schemas/{name}"}
            assert validator(name).is_valid(wire)
            assert wire.get("type", message["name"]) == message["name"]
            for field in PLAIN.get(name, {"type": ""}):
                if name != "EvaluationConnected" or field not in ("clientId", "userId", "expiresAt"):
                    assert not validator(name).is_valid({key: wire[key] for key in wire if key != field})
            if "type" in wire:
                assert not validator(name).is_valid({**wire, "type": "shout"})


class TestHosts:
    def test_of_ones_own(self) -> None:
        arguments = ["schema", "--asyncapi", "--host", "events.example.com:443", "--redis-host", "[::1]:6380"]
        done = CliRunner().invoke(group, arguments)
        hosts = {name: server["host"] for name, server in json.loads(done.output)["servers"].items()}
        own = "events.example.com:443"
        assert hosts == {"websocket": own, "sse": own, "http": own, "redis": "[::1]:6380"}
        AsyncAPI3.model_validate(json.loads(done.output))
        assert json.loads(done.output) == asyncapi_document(own, "[::1]:6380")

    def test_the_defaults(self) -> None:
        hosts = {name: server["host"] for name, server in DOCUMENT["servers"].items()}
        own = "127.0.0.1:8000"
        assert hosts == {"websocket": own, "sse": own, "http": own, "redis": "127.0.0.1:6379"}

    @pytest.mark.parametrize("flag", ["--host", "--redis-host"])
    @pytest.mark.parametrize(
        "host",
        ["", "a", "a:", ":8000", "*:8000", "a:0", "a:65536", "a b:1", "::1:80", "unix:/a", "http://a:1", "a:1/b"],
    )
    def test_what_is_none(self, flag: str, host: str) -> None:
        done = CliRunner().invoke(group, ["schema", "--asyncapi", flag, host])
        assert done.exit_code == 2
        assert f"Invalid value for '{flag}': {host!r} is not HOST:PORT; write such as" in done.output

    @pytest.mark.parametrize(
        "arguments", [("alert", "--asyncapi"), ("--host", "a:1"), ("alert", "--redis-host", "a:1")]
    )
    def test_flags_that_do_not_go_together(self, arguments: tuple[str, ...]) -> None:
        assert CliRunner().invoke(group, ["schema", *arguments]).exit_code == 2


class TestChannelsOfEvents:
    def test_their_addresses(self) -> None:
        assert {channel["address"] for channel in OF_EVENTS.values()} == {
            "job_progress:{jobId}", "job_progress:{jobId}:{userId}",
            "video_render:{jobId}", "video_render:{jobId}:{userId}",
            "ai_stream", "ai_stream:{id}", "ai_stream:{id}:{userId}",
            "council_score", "council_score:{id}",
            "creative_evaluation", "creative_evaluation:{id}",
            "campaign_metrics:{campaignId}", "campaign_metrics:{campaignId}:{userId}",
            "ab_test_results:{testId}", "ab_test_results:{testId}:{userId}",
            "live_metrics:{entityId}", "live_metrics:{entityId}:{userId}",
            "alerts", "alerts:{userId}", "alerts:{id}:{userId}",
        }  # fmt: skip
        for channel in OF_EVENTS.values():
            parameters = dict.fromkeys(channel.get("parameters", {}), "x1")
            Channel.from_name(channel["address"].format(**parameters))

    def test_one_publishes_through_redis_and_receives_over_the_web(self) -> None:
        received = {name: channel for name, channel in OF_EVENTS.items() if not name.startswith("publish_")}
        assert set(OF_EVENTS) == {prefix + name for prefix in ("", "publish_") for name in received}
        for name, channel in received.items():
            twin = OF_EVENTS[f"publish_{name}"]
            same = ("address", "messages", "parameters")
            assert [channel.get(key) for key in same] == [twin.get(key) for key in same]
            assert (servers_of(channel), servers_of(twin)) == (["websocket", "sse"], ["redis"])
            for action, at in (("receive", name), ("send", f"publish_{name}")):
                of_channel = {
                    key: operation["action"]
                    for key, operation in OPERATIONS.items()
                    if operation["channel"]["$ref"] == f"#/channels/{at}"
                }
                assert of_channel == {f"{action}_{name}": action}

    def test_an_evaluation_carries_its_end_too(self) -> None:
        assert set(CHANNELS["council_score"]["messages"]) == {"CouncilScoreStream"}
        assert set(CHANNELS["council_score_id"]["messages"]) == {
            "CouncilScoreStream", "EvaluationRestarted", "Complete", "Error",
        }  # fmt: skip

    def test_an_events_channel_is_one_of_them(self) -> None:
        for example in EXAMPLES:
            if example.channel is None:
                continue
            addresses = {
                channel["address"].split(":")[0]
                for channel in OF_EVENTS.values()
                if example.event_type.__name__ in channel["messages"]
            }
            assert addresses == {example.channel.split(":")[0]}

    @given(CHANNEL)
    def test_a_channel_is_what_the_daemon_takes(self, wire: Any) -> None:
        try:
            Channel.from_wire(wire)
            is_taken = True
        except ChannelError:
            is_taken = False
        assert validator("Channel").is_valid(wire) == is_taken


class TestSessions:
    def test_over_websocket(self) -> None:
        channel = CHANNELS["session_websocket"]
        assert (channel["address"], servers_of(channel)) == ("/ws", ["websocket"])
        assert channel["bindings"]["ws"]["query"]["properties"].keys() == {"userId"}
        assert messages_of(OPERATIONS["receive_session_websocket"]) == [
            "Connected", "Subscribed", "Unsubscribed", "Authenticated", "Published", "Pong",
            "Gap", "Heartbeat", "Error", "Disconnected",
        ]  # fmt: skip
        for name, answers in {
            "Subscribe": ["Subscribed", "Error"],
            "Unsubscribe": ["Unsubscribed", "Error"],
            "Authenticate": ["Authenticated", "Error"],
            "Publish": ["Published", "Error"],
            "Ping": ["Pong"],
        }.items():
            operation = OPERATIONS[f"send_{name.lower()}"]
            assert (operation["action"], messages_of(operation)) == ("send", [name])
            assert messages_of(operation["reply"]) == answers

    @given(st.sampled_from(["subscribe", "unsubscribe", "ping", "publish"]), CHANNEL, ANYTHING | st.just({}))
    def test_what_a_client_may_say(self, type: str, channel: Any, event: Any) -> None:
        session = Session(10, None, rules=RuleBook(Rules(anonymous_publish=("*",)), {}))
        said = {"type": type, "channel": channel, "event": event}
        steps = session.receive_text(json.dumps(said), 0.0)
        codes = {step.code for step in steps if isinstance(step, Reply)}
        if "forbidden" in codes:
            # Whose channel it is, no schema says; and who may not publish there is told so before the event is read.
            said["event"] = {}
        assert validator(type.capitalize()).is_valid(said) == (codes <= {"", "forbidden"})

    @given(ANYTHING)
    def test_a_token_is_a_text(self, token: Any) -> None:
        session = Session(10, None, identity=Identity(ANONYMOUS))
        said = {"type": "authenticate", "token": token}
        is_looked_at = session.receive_text(json.dumps(said), 0.0) == [Authenticate(token)]
        assert validator("Authenticate").is_valid(said) == is_looked_at

    def test_over_event_streams(self) -> None:
        channel = CHANNELS["session_sse"]
        assert (channel["address"], servers_of(channel)) == ("/api/stream", ["sse"])
        assert set(channel["messages"]) == {
            "Connected", "Gap", "Error", "TokenExpired", "ServerShutdown", "Complete",
        }  # fmt: skip
        http = OPERATIONS["receive_session_sse"]["bindings"]["http"]
        assert (http["method"], http["query"]["required"]) == ("GET", ["channel"])
        assert set(http["query"]["properties"]) == {"channel", "userId"}

    @pytest.mark.parametrize("name", ["render_progress", "campaign_metrics", "ab_test_results"])
    def test_paths_of_one_channel(self, name: str) -> None:
        channel = CHANNELS[f"stream_{name}"]
        assert servers_of(channel) == ["sse"]
        parameters = dict.fromkeys(channel["parameters"], "x1")
        stream = stream_of(channel["address"].format(**parameters), [], None, 1)
        assert channel["description"].startswith(f"The channel {stream.channels[0].type}:{{")
        (carried,) = (kind for kind in EVENT_TYPES.values() if kind.channel_type == stream.channels[0].type)
        end = {"Complete"} if stream.finite else set()
        assert set(channel["messages"]) == {"Connected", "Gap", carried.__name__, *LAST} | end


class TestEvaluations:
    @pytest.mark.parametrize("path", PATHS)
    def test_their_streams(self, path: str) -> None:
        name = "stream_" + path.rpartition("/")[2].replace("-", "_")
        step = {"council_score": "CouncilScoreStream", "creative_evaluation": "AiEvaluationStream"}[PATHS[path]]
        for channel, address in ((name, path), (f"{name}_evaluationId", f"{path}/{{evaluationId}}")):
            assert (CHANNELS[channel]["address"], servers_of(CHANNELS[channel])) == (address, ["sse"])
            assert messages_of(OPERATIONS[f"receive_{channel}"]) == [
                "EvaluationConnected", step, "EvaluationRestarted", "Complete", *LAST,
            ]  # fmt: skip
        watching = OPERATIONS[f"receive_{name}_evaluationId"]["bindings"]["http"]["query"]
        assert set(watching["properties"]) == {"lastEventId", "userId"}

    @pytest.mark.parametrize("path", PATHS)
    def test_their_parameters_are_those_that_are_asked_for(self, path: str) -> None:
        name = "receive_stream_" + path.rpartition("/")[2].replace("-", "_")
        query = OPERATIONS[name]["bindings"]["http"]["query"]
        parameters = {each: "{}" if each == "features" else "x" for each in query["properties"] if each != "type"}
        if "type" in query["properties"]:
            parameters["type"] = query["properties"]["type"]["enum"][-1]
        inquiry = inquiry_from_query(path, list(parameters.items()))
        assert {*inquiry.parameters, "userId"} == set(query["properties"])
        assert all(each["description"] for each in query["properties"].values())
        for missing in parameters:
            given = [(key, value) for key, value in parameters.items() if key != missing]
            if missing in query["required"]:
                with pytest.raises(InquiryRefused, match=f"Missing required parameters: {missing}"):
                    inquiry_from_query(path, given)
            else:
                inquiry_from_query(path, given)

    def test_the_types_of_a_creative_evaluation(self) -> None:
        query = OPERATIONS["receive_stream_evaluate_creative"]["bindings"]["http"]["query"]["properties"]
        given = [("creativeId", "c"), ("content", "x")]
        assert inquiry_from_query("/api/stream/evaluate-creative", given).parameters["type"] == query["type"]["default"]
        for type in query["type"]["enum"]:
            inquiry_from_query("/api/stream/evaluate-creative", [*given, ("type", type)])
        with pytest.raises(InquiryRefused) as caught:
            inquiry_from_query("/api/stream/evaluate-creative", [*given, ("type", "nice")])
        assert str(caught.value).endswith("is none of " + ", ".join(query["type"]["enum"]))


class TestPublishing:
    def test_over_http(self) -> None:
        channel, operation = CHANNELS["publish_http"], OPERATIONS["send_publish_http"]
        assert (channel["address"], servers_of(channel)) == ("/api/publish", ["http"])
        assert (operation["action"], messages_of(operation)) == ("send", ["Submission"])
        assert messages_of(operation["reply"]) == ["SubmissionTaken", "Refusal"]
        assert operation["bindings"]["http"]["method"] == "POST"

    EVENT = ANYTHING | st.just({}) | st.just({"type": "x"})
    USER = ANYTHING | st.text(max_size=3) | st.sampled_from(["u" * 256, "u" * 257, "\u0085", "\u2028", "a\n", ""])
    ITEM = st.fixed_dictionaries({}, optional={"channel": CHANNEL, "user": USER, "event": EVENT, "more": ANYTHING})

    @given(ANYTHING | ITEM | st.lists(ITEM, max_size=3))
    @hypothesis.example({"user": "u" * 256, "event": {}})
    @hypothesis.example({"user": "u" * 257, "event": {}})
    @hypothesis.example({"user": "u", "channel": "a", "event": {}})
    @hypothesis.example({"user": "u", "channel": None, "event": {}})
    def test_a_submission_is_what_the_daemon_takes(self, wire: Any) -> None:
        try:
            submission_of(
                json.dumps(wire).encode(), types={}, serves_undeclared=True, events_max=1000, message_max_bytes=10_000,
                objection=lambda channel: None,
            )  # fmt: skip
            is_taken = True
        except RequestRefused:
            is_taken = False
        assert validator("Submission").is_valid(wire) == is_taken


def _references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(document, list):
        for value in document:
            yield from _references(value)
