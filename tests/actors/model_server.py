"""A server of models: a real HTTP server that streams chat completions as providers do, well and badly.

The model that a request names chooses the script that answers it; `SCRIPTS` has them all. A test gives
its own with `server.scripts["name"] = script`.

`python -m tests.actors.model_server PORT` runs it for a person who wants to try `broker evaluate` without
keys: `broker evaluate --config tests/evaluation/evaluators.toml` expects it on port 8765. Port 0 is any
free one. Prints `models on 127.0.0.1:PORT` when it listens; runs until SIGTERM or SIGINT.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

PAUSE_SECONDS = 0.4
PROSE = (
    "The first line names a worry that many viewers have, and it does so within two seconds. ",
    "The proof comes late: the numbers stand behind the offer, where few are still watching. ",
    "Nothing in the words is new, but the picture of the empty desk is. ",
)


def verdict(**changes: Any) -> str:
    """A verdict's text as a well-behaved model writes it; None leaves a part out."""
    value: dict[str, Any] = {
        "score": 72,
        "psychology": 70,
        "hookStrength": 81,
        "novelty": 55,
        "reasoning": "Good hook.",
    }
    value = {name: part for name, part in {**value, **changes}.items() if part is not None}
    return f"\n\n```json\n{json.dumps(value, ensure_ascii=False)}\n```\n"


def chunk(text: str | None = None, *, finish: str | None = None) -> bytes:
    """One chunk as an event of the stream."""
    delta = {} if text is None else {"content": text}
    body = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@define(eq=False)
class Call:
    """One request, and the way to answer it. `disconnected` is set when the client has gone."""

    model: str
    body: dict[str, Any]
    headers: dict[str, str]
    _stream: trio.SocketStream
    disconnected: trio.Event = field(factory=trio.Event)

    @property
    def wants_verdict(self) -> bool:
        return "verdict" in self.body["messages"][0]["content"]

    async def start(self, status: int = 200, content_type: str = "text/event-stream; charset=utf-8") -> None:
        head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        await self._stream.send_all(head.encode())

    async def send(self, data: bytes) -> None:
        """Bytes of the body, in a TCP write of their own."""
        await self._stream.send_all(b"%x\r\n%b\r\n" % (len(data), data))

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.send(chunk(text))

    async def finish(self, reason: str = "stop") -> None:
        await self.send(chunk(finish=reason))
        await self.send(DONE)
        await self.end()

    async def end(self) -> None:
        """The end of the body; the connection stays open for another request."""
        await self._stream.send_all(b"0\r\n\r\n")

    async def refuse(self, status: int, body: Any) -> None:
        await self.start(status, "application/json")
        await self.send(json.dumps(body).encode())
        await self.end()

    async def drop(self) -> None:
        """Close the connection in the middle of the body."""
        await self._stream.aclose()


Script = Callable[[Call], Awaitable[None]]


async def well(call: Call) -> None:
    await call.start()
    await call.send(b": welcome\n\n")
    await call.say("", *PROSE)
    if call.wants_verdict:
        await call.say(*verdict())
    await call.finish()


async def slow(call: Call) -> None:
    await call.start()
    for text in (*" ".join(PROSE).split(" "), verdict() if call.wants_verdict else ""):
        await call.say(f"{text} ")
        await trio.sleep(PAUSE_SECONDS)
    await call.finish()


async def half(call: Call) -> None:
    await call.start()
    await call.say(*PROSE[:2])
    await call.drop()


async def short(call: Call) -> None:
    """The body ends as it should, the answer does not."""
    await call.start()
    await call.say(*PROSE[:2])
    await call.end()


async def malformed(call: Call) -> None:
    await call.start()
    await call.say(PROSE[0])
    await call.send(b'data: {"choices": [\n\n')
    await call.finish()


async def error(call: Call) -> None:
    await call.start()
    await call.say(PROSE[0])
    await call.send(b'data: {"error": {"message": "overloaded, said the machine", "code": 529}}\n\n')
    await call.end()


async def html(call: Call) -> None:
    await call.start(200, "text/html")
    await call.send(b"<h1>Welcome to the proxy</h1>")
    await call.end()


async def key(call: Call) -> None:
    await call.refuse(401, {"error": {"message": f"Incorrect API key: {call.headers.get('authorization')}"}})


async def busy(call: Call) -> None:
    await call.refuse(429, [{"error": {"code": 429, "message": "Quota of organization org-1234 is used up"}}])


async def broken(call: Call) -> None:
    await call.refuse(500, {"error": {"message": f"cannot work with {call.headers.get('authorization')}"}})


async def mute(call: Call) -> None:
    """Never answers."""
    await trio.sleep_forever()


async def silent(call: Call) -> None:
    """Begins well and never goes on."""
    await call.start()
    await call.say(PROSE[0])
    await trio.sleep_forever()


async def endless(call: Call) -> None:
    await call.start()
    while True:
        await call.say(" and so on" * 1000)


async def forever(call: Call) -> None:
    """Keeps the connection alive and says nothing."""
    await call.start()
    while True:
        await call.send(b": still thinking\n\n")
        await trio.sleep(20)


async def undone(call: Call) -> None:
    """No [DONE] and no end of the body behind an answer that is whole."""
    await call.start()
    await call.say(*PROSE, verdict())
    await call.send(chunk(finish="stop"))
    await trio.sleep_forever()


async def cut(call: Call) -> None:
    await call.start()
    await call.say(*PROSE)
    await call.finish("length")


async def beyond(call: Call) -> None:
    await call.start()
    await call.say(PROSE[0], verdict(score=101))
    await call.finish()


async def bytewise(call: Call) -> None:
    """Every byte in a TCP write of its own, with letters of two, three and four bytes."""
    await call.start()
    for byte in chunk("Schön — 漢字 😀.") + chunk(verdict(reasoning="Für 漢字 😀")) + chunk(finish="stop") + DONE:
        await call.send(bytes([byte]))
    await call.end()


SCRIPTS: dict[str, Script] = {
    script.__name__: script
    for script in (
        *(well, slow, half, short, malformed, error, html, key, busy, broken),
        *(mute, silent, endless, forever, undone, cut, beyond, bytewise),
    )
}


@define(eq=False)
class ModelServer:
    """The server. `calls` are the requests so far, in order."""

    port: int = 0
    scripts: dict[str, Script] = field(factory=lambda: dict(SCRIPTS))
    calls: list[Call] = field(factory=list)
    _called: trio.Event = field(factory=trio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def wait_calls(self, count: int) -> list[Call]:
        while len(self.calls) < count:
            await self._called.wait()
        return self.calls

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled."""
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._attend, listeners)

    async def _attend(self, stream: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[bytes](math.inf)
        gone = trio.Event()

        async def read() -> None:
            """Reads beside the script, to see the client go."""
            try:
                while data := await stream.receive_some():
                    send.send_nowait(bytes(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            send.close()
            gone.set()

        async with stream, receive, trio.open_nursery() as nursery:
            nursery.start_soon(read)
            buffer = b""
            while call := await self._next(stream, receive, buffer):
                self.calls.append(call)
                self._called.set()
                self._called = trio.Event()
                async with trio.open_nursery() as race:
                    race.start_soon(self._watch, call, gone, race.cancel_scope)
                    try:
                        await self.scripts[call.model](call)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        # The reader may see the end a little later than the writer.
                        await gone.wait()
                        call.disconnected.set()
                    race.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def _watch(self, call: Call, gone: trio.Event, scope: trio.CancelScope) -> None:
        await gone.wait()
        call.disconnected.set()
        scope.cancel()

    async def _next(
        self, stream: trio.SocketStream, receive: trio.MemoryReceiveChannel[bytes], buffer: bytes
    ) -> Call | None:
        try:
            while b"\r\n\r\n" not in buffer:
                buffer += await receive.receive()
            head, _, body = buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            assert first == "POST /v1/chat/completions HTTP/1.1", first
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            while len(body) < int(headers["content-length"]):
                body += await receive.receive()
        except trio.EndOfChannel:
            return None
        request = json.loads(body)
        return Call(request["model"], request, headers, stream)


@asynccontextmanager
async def open_model_server() -> AsyncIterator[ModelServer]:
    """A server on a free port, for as long as the context is open."""
    async with trio.open_nursery() as nursery:
        server = ModelServer()
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()


async def main(arguments: Iterable[str]) -> None:
    """Serve until a signal."""
    async with trio.open_nursery() as nursery:
        server = ModelServer(*(int(port) for port in arguments))
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await nursery.start(server.serve)
            print(f"models on 127.0.0.1:{server.port}", flush=True)
            await anext(aiter(signals))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
