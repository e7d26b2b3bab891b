"""`broker pub`: the bytes that were given arrive, and everything that can go wrong is one clear message."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
import trio
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from broker.cli import jsonstream
from broker.cli.jsonstream import JsonError, JsonStream, check_json
from broker.cli.pub import command
from broker.config.sections import Embedded
from broker.upstream.embedded import EmbeddedServer, open_embedded

_ROOT = Path(__file__).parents[2]
_BOUND_SECONDS = 10.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _run(*arguments: str, stdin: bytes | None = None, **environment: str) -> Result:
    runner = CliRunner(env={"BROKER_CONFIG": None, "REDIS_URL": None, "BROKER_REDIS_URL": None} | environment)
    return await trio.to_thread.run_sync(partial(runner.invoke, command, arguments, input=stdin))


@asynccontextmanager
async def _subscribed(pattern: str) -> AsyncIterator[tuple[EmbeddedServer, redis.client.PubSub]]:
    async with open_embedded(Embedded(port=_free_port())) as server:
        with redis.Redis.from_url(server.url) as client, client.pubsub() as pubsub:
            pubsub.psubscribe(pattern)
            assert await trio.to_thread.run_sync(lambda: pubsub.get_message(timeout=_BOUND_SECONDS)) is not None
            yield server, pubsub


async def _received(pubsub: redis.client.PubSub, count: int) -> list[tuple[bytes, bytes]]:
    found = []
    for _ in range(count):
        message = await trio.to_thread.run_sync(lambda: pubsub.get_message(timeout=_BOUND_SECONDS))
        assert message is not None
        found.append((message["channel"], message["data"]))
    return found


async def test_the_bytes_arrive_as_given() -> None:
    payload = '{ "b":1.0,  "a":"\u00e4\\u00e4",\n "b":2 }'
    async with _subscribed("*") as (server, pubsub):
        result = await _run("job_progress:42", payload, "--redis", server.service_url)
        assert (result.exit_code, result.output) == (0, "job_progress:42: received by 1 subscription in Redis\n")
        [(channel, message)] = await _received(pubsub, 1)
        assert channel == b"job_progress:42"
        # A channel with history: in front is the position.
        assert re.fullmatch(rb"\x01s:(\d+):1:\1 ", message.removesuffix(payload.encode()))


async def test_an_event_for_a_user_goes_to_the_daemons() -> None:
    event = '{ "type":"note", "n":1 }'
    async with _subscribed("*") as (server, pubsub):
        result = await _run("--user", "ann b", event, "--redis", server.service_url)
        assert (result.exit_code, result.output) == (0, "user ann b: received by 1 daemon\n")
        stream = b'{"n":1}\n{"n":2}\n'
        for arguments in (["-"], []):
            result = await _run("--user", "7", *arguments, "--redis", server.service_url, stdin=stream)
            assert (result.exit_code, result.output) == (
                0,
                "user 7: 2 published; the last was received by 1 daemon\n",
            )
        assert await _received(pubsub, 5) == [
            (b"broker:users", b'{"user":"ann b","event":%b}' % event.encode()),
            *([(b"broker:users", b'{"user":"7","event":{"n":%d}}' % n) for n in (1, 2)] * 2),
        ]
    async with open_embedded(Embedded(port=_free_port())) as server:
        result = await _run("--user", "7", event, "--redis", server.service_url)
        assert (result.exit_code, result.output) == (0, "user 7: no daemon is there right now\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--user", "", "{}"], "Error: user: 1 to 256 characters, none of them a control character\n"),
        (["--user", "a\tb", "{}"], "Error: user: 1 to 256 characters, none of them a control character\n"),
        (["--user", "a", "a:1", "{}"], "Error: with --user there is no channel: give the JSON alone, or pipe it in\n"),
        (["--user", "a", "[1]"], "Error: the event is not a JSON object, which is all that a user can be sent\n"),
        (["--user", "a", "{"], "Error: Invalid value for JSON: not JSON at line 1, column 2: "),
        ([], "Error: Missing argument 'CHANNEL'.\n"),
        (["broker:users", "{}"], "Error: Invalid value for CHANNEL: channels of type broker are the daemons' own\n"),
    ],
)
async def test_what_cannot_be_published_is_said(arguments: list[str], said: str) -> None:
    async with _subscribed("*") as (server, pubsub):
        result = await _run(*arguments, "--redis", server.service_url)
        assert result.exit_code in (1, 2)
        assert said in result.stderr
        assert (await _run("a", "1", "--redis", server.service_url)).exit_code == 0
        assert await _received(pubsub, 1) == [(b"a", b"1")]


async def test_a_user_that_is_none_is_said_before_anything_is_connected_to() -> None:
    result = await _run("--user", "a\tb", "-", "--redis", f"redis://127.0.0.1:{_free_port()}", stdin=b"{}")
    assert (result.exit_code, result.output) == (
        1,
        "Error: user: 1 to 256 characters, none of them a control character\n",
    )


async def test_a_user_who_may_only_publish() -> None:
    async with _subscribed("*") as (server, pubsub):

        def limit() -> None:
            with redis.Redis.from_url(server.url) as client:
                client.execute_command("ACL", "SETUSER", "service", "on", ">pw", "+publish", "&job_progress:*")

        await trio.to_thread.run_sync(limit)
        url = f"redis://service:pw@127.0.0.1:{server.port}/0"
        result = await _run("job_progress:42", "-", "--redis", url, stdin=b"1 2")
        assert result.output == "job_progress:42: 2 published; the last was received by 1 subscription in Redis\n"
        assert await _received(pubsub, 2) == [(b"job_progress:42", b"1"), (b"job_progress:42", b"2")]
        result = await _run("alerts:1", "1", "--redis", url)
        assert result.exit_code == 1
        assert result.stderr.endswith(
            " refused: No permissions to access a channel; check user, password and rights in that URL\n"
        )


async def test_nobody_listening_is_said_and_no_error() -> None:
    async with open_embedded(Embedded(port=_free_port())) as server:
        result = await _run("job_progress:42", "{}", "--redis", server.service_url)
    assert (result.exit_code, result.output) == (0, "job_progress:42: nobody is subscribed to it right now\n")


async def test_the_prefix_and_the_url_come_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    async with _subscribed("*") as (server, pubsub):
        file.write_text(f'[redis]\nurl = "{server.service_url}"\nchannel_prefix = "app."\n')
        for result in (await _run("a:1", "1", "--config", str(file)), await _run("a:1", "2", BROKER_CONFIG=str(file))):
            assert (result.exit_code, result.output) == (0, "a:1: received by 1 subscription in Redis\n")
        assert await _received(pubsub, 2) == [(b"app.a:1", b"1"), (b"app.a:1", b"2")]


async def test_without_a_url_the_embedded_server_is_published_to() -> None:
    async with _subscribed("*") as (server, pubsub):
        result = await _run("a:1", "{}", BROKER_EMBEDDED_PORT=str(server.port))
        assert result.exit_code == 0
        assert await _received(pubsub, 1) == [(b"a:1", b"{}")]


@pytest.mark.parametrize("arguments", [["-"], []])
async def test_a_stream_of_values_is_published_one_by_one(arguments: list[str]) -> None:
    stream = b'{"a":1}\n{\n  "b": "}"\n}\n\n[1,2]"x" 7\ntrue'
    async with _subscribed("*") as (server, pubsub):
        result = await _run("a:1", *arguments, "--redis", server.service_url, stdin=stream)
        assert result.output == "a:1: 6 published; the last was received by 1 subscription in Redis\n"
        assert result.exit_code == 0
        wanted = [b'{"a":1}', b'{\n  "b": "}"\n}', b"[1,2]", b'"x"', b"7", b"true"]
        assert await _received(pubsub, 6) == [(b"a:1", value) for value in wanted]


async def test_an_incomplete_end_names_its_line_and_what_was_before_stays_published() -> None:
    async with _subscribed("*") as (server, pubsub):
        result = await _run("a:1", "-", "--redis", server.service_url, stdin=b'1\n2\n\n{"a":\n 3')
        assert result.exit_code == 1
        assert result.stdout == "a:1: 2 published; the last was received by 1 subscription in Redis\n"
        assert result.stderr == "Error: the JSON value that began on line 4 is incomplete: the input ended inside it\n"
        assert await _received(pubsub, 2) == [(b"a:1", b"1"), (b"a:1", b"2")]


async def test_a_bad_value_in_a_stream_stops_it_and_what_was_before_stays_published() -> None:
    async with _subscribed("*") as (server, pubsub):
        result = await _run("a:1", "-", "--redis", server.service_url, stdin=b'{"a":1}\n{"a":]}\n{"a":3}\n')
        assert result.exit_code == 1
        assert result.stdout == "a:1: 1 published; the last was received by 1 subscription in Redis\n"
        assert result.stderr == 'Error: not JSON at line 2, column 6: Expecting value\n  {"a":]\n       ^\n'
        assert await _received(pubsub, 1) == [(b"a:1", b'{"a":1}')]


async def test_an_empty_stream_publishes_nothing() -> None:
    result = await _run("a:1", stdin=b" \n")
    assert (result.exit_code, result.output) == (0, "a:1: 0 published\n")


async def test_values_are_published_as_they_come() -> None:
    async with _subscribed("*") as (server, pubsub):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", "from broker.cli.pub import command; command()", "a:1", "--redis", server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )
        assert process.stdin is not None and process.stdout is not None
        async with process.stdin, process.stdout:
            await process.stdin.send_all(b'{"n":1}\n')
            assert await _received(pubsub, 1) == [(b"a:1", b'{"n":1}')]
            await process.stdin.send_all(b'{"n":2}\n')
            assert await _received(pubsub, 1) == [(b"a:1", b'{"n":2}')]
            await process.stdin.aclose()
            with trio.fail_after(_BOUND_SECONDS):
                assert await process.wait() == 0


async def test_bad_json_is_shown_with_a_caret() -> None:
    result = await _run("a:1", '{"a": 1,\n "b" 2}')
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "Error: Invalid value for JSON: not JSON at line 2, column 6: Expecting ':' delimiter\n   \"b\" 2}\n       ^\n"
    )


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"\xff", "not UTF-8: byte 1"),
        (b"", "not JSON at line 1, column 1"),
        (b"{} {}", "not JSON at line 1, column 4: Extra data"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_not_json(payload: bytes, what: str) -> None:
    with pytest.raises(JsonError) as caught:
        check_json(payload)
    assert what in str(caught.value)


def test_a_number_longer_than_python_likes_is_json() -> None:
    check_json(b"[" + b"9" * 10_000 + b"]")


def test_a_long_line_is_cut_around_the_caret() -> None:
    with pytest.raises(JsonError) as caught:
        check_json(b"[" + b"1," * 500 + b"x," + b"1," * 500 + b"1]")
    _, line, caret = str(caught.value).split("\n")
    assert len(line) <= 80
    assert line[caret.index("^")] == "x"


async def test_a_bad_channel_is_refused_before_redis() -> None:
    result = await _run("a:b:c:d", "{}", "--redis", "redis://127.0.0.1:1/0")
    assert result.exit_code == 2
    assert "Invalid value for CHANNEL: channel 'a:b:c:d' has 4 parts" in result.stderr


async def test_a_redis_that_is_not_there_says_which_from_where_and_what_to_do() -> None:
    port = _free_port()
    url = f"redis://someone:hunter2@127.0.0.1:{port}/0"
    for origin, result in (
        ("--redis", await _run("a:1", "{}", "--redis", url)),
        ("environment REDIS_URL", await _run("a:1", "{}", REDIS_URL=url)),
    ):
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(
            f"Error: cannot reach Redis at redis://someone:***@127.0.0.1:{port}/0 (from {origin}): "
        )
        assert result.stderr.endswith("; start it, or say where it is with --redis\n")
        assert result.stderr.count("\n") == 1
        assert "hunter2" not in result.stderr


async def test_no_redis_configured_and_no_daemon_says_so() -> None:
    port = _free_port()
    result = await _run("a:1", "{}", BROKER_EMBEDDED_PORT=str(port))
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: no Redis is configured, and the daemon's embedded one does not answer at "
        f"redis://127.0.0.1:{port}/0 (port from environment BROKER_EMBEDDED_PORT): "
    )
    assert result.stderr.endswith("; start `broker serve`, or say where Redis is with --redis\n")


async def test_a_refused_password_is_one_line() -> None:
    async with open_embedded(Embedded(port=_free_port())) as server:

        def protect() -> None:
            with redis.Redis.from_url(server.url) as client:
                client.config_set("requirepass", "right")

        await trio.to_thread.run_sync(protect)
        wrong = await _run("a:1", "{}", "--redis", f"redis://:wrong@127.0.0.1:{server.port}/0")
        none = await _run("a:1", "{}", "--redis", server.service_url)
    for result, url in ((wrong, f"redis://:***@127.0.0.1:{server.port}/0"), (none, server.service_url)):
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: Redis at {url} (from --redis) refused: ")
        assert result.stderr.endswith("; check user, password and rights in that URL\n")
        assert result.stderr.count("\n") == 1
        assert "wrong" not in result.stderr.replace("WRONGPASS", "")


async def test_settings_that_cannot_be_used_are_said() -> None:
    result = await _run("a:1", "{}", BROKER_EMBEDDED_PORT="0")
    assert result.exit_code == 1
    assert "BROKER_EMBEDDED_PORT" in result.stderr


def test_help_does_not_import_redis() -> None:
    script = (
        "import sys\nfrom broker.cli.pub import command\n"
        "command(['--help'], standalone_mode=False)\n"
        "print(sorted({'redis', 'trio', 'cattrs', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=_ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.lists(st.tuples(_JSON, st.booleans(), st.sampled_from([None, 2]), st.sampled_from(["\n", " ", "\r\n\n"]))),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_a_stream_cut_anywhere_gives_the_same_values(documents: list, sizes: list[int]) -> None:
    texts = [
        json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode() for value, ascii_only, indent, _ in documents
    ]
    data = b"".join(text + gap.encode() for text, (*_, gap) in zip(texts, documents, strict=True))
    stream, found, at, turn = JsonStream(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        values, problem = stream.feed(data[at : at + size])
        assert problem is None
        found += values
        at, turn = at + size, turn + 1
    assert stream.end() == ([], None)
    assert found == texts


def test_a_lost_bracket_is_noticed_long_before_the_end() -> None:
    stream = JsonStream()
    values, problem = stream.feed(b'{"a":1}\n{"a":2\n')
    assert (values, problem) == ([b'{"a":1}'], None)
    for _ in range(10):
        values, problem = stream.feed(b'{"a":3}\n')
        assert values == []
        if problem is not None:
            break
    assert str(problem) == "not JSON at line 3, column 1: Expecting ',' delimiter\n  {\"a\":3}\n  ^"


def test_a_value_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "VALUE_MAX_BYTES", 100)
    values, problem = JsonStream().feed(b"1\n[" + b"1," * 60)
    assert values == [b"1"]
    assert str(problem) == "the JSON value that began on line 2 is larger than 100 bytes"
