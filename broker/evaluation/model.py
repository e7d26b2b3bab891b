"""A model: one streaming call of an OpenAI-compatible chat endpoint.

Laws: whatever keeps a model from answering is an EvaluationError whose `str()` may be shown to whoever
watches: no key, no address, nothing that the provider said. What it said goes to the log, with the key
masked. A deadline never cuts `hear`, only the network: a publish that is cancelled half way would break
its connection. Nothing is asked twice, because a repeated call costs tokens again.
Bounds: `timeout_seconds` for the whole call, `silence_seconds` without a byte, `REFUSAL_MAX_BYTES` of an
answer that is an error; those of `completion.py` for the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import httpx
import structlog
import trio
from attrs import define, field

from broker import __version__
from broker.errors import EvaluationError
from broker.evaluation.completion import ChatCompletion, said
from broker.evaluation.settings import ModelSettings

CONNECT_SECONDS = 10.0
# How long `[DONE]` may take behind a `finish_reason`; the answer is whole without it.
LINGER_SECONDS = 2.0
CLOSE_SECONDS = 2.0
REFUSAL_MAX_BYTES = 64 * 1024

# A header can carry nothing else, and the error of one that cannot would quote it.
_KEY = re.compile(r"[!-~]+")
_REFUSALS = {
    400: "its provider refused the request",
    401: "its provider refused the key",
    402: "its provider wants to be paid first",
    403: "its provider refused the key",
    404: "its provider does not know the model",
    408: "its provider timed out",
    413: "the request is too large for its provider",
    429: "its provider allows no more requests now",
}

_log = structlog.get_logger()


@asynccontextmanager
async def open_http() -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP connections that all models share; closed at the end. Redirects are not followed: the key stays."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=30.0)
    async with httpx.AsyncClient(limits=limits, follow_redirects=False) as http:
        yield http


class ChatModel(Protocol):
    """What the handlers ask: a `Model`, or one of the demo."""

    @property
    def name(self) -> str:
        """The stage that clients see."""

    async def ask(self, messages: Sequence[Mapping[str, str]], hear: Callable[[str], Awaitable[None]]) -> None:
        """As `Model.ask`."""


@define(eq=False)
class Model:
    """A named model, ready to be asked, or with the `problem` that keeps it from that.

    Ownership: `http` is the caller's.
    """

    name: str
    settings: ModelSettings
    _key: str = field(repr=False)
    _http: httpx.AsyncClient = field(repr=False)

    @classmethod
    def from_environment(
        cls, name: str, settings: ModelSettings, environ: Mapping[str, str], http: httpx.AsyncClient
    ) -> Model:
        """With the key that `settings.key_env` names, where it is set."""
        return cls(name, settings, environ.get(settings.key_env, "").strip() if settings.key_env else "", http)

    @property
    def problem(self) -> str:
        """Why it cannot be asked, fit for watchers; empty if it can."""
        if self.settings.key_env and not self._key:
            return "it has no key"
        return "its key is not usable" if self._key and not _KEY.fullmatch(self._key) else ""

    async def ask(self, messages: Sequence[Mapping[str, str]], hear: Callable[[str], Awaitable[None]]) -> None:
        """Ask once and call `hear` with each piece of the answer as it comes. Returns when the answer is whole.

        Raises:
            EvaluationError: no whole answer; already logged. Besides, whatever `hear` raises.
        """
        try:
            if self.problem:
                raise EvaluationError(self.problem)
            await self._ask(messages, hear)
        except EvaluationError as error:
            notes = [self.masked(note) for note in getattr(error, "__notes__", ())]
            _log.warning("model_failed", model=self.name, reason=str(error), said=notes)
            raise EvaluationError(str(error)) from None

    def masked(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self._key, "***") if self._key else text

    async def _ask(self, messages: Sequence[Mapping[str, str]], hear: Callable[[str], Awaitable[None]]) -> None:
        deadline = trio.current_time() + self.settings.timeout_seconds
        with self._network(deadline):
            response = await self._http.send(self._request(messages), stream=True)
        body = response.aiter_raw()
        try:
            if response.status_code != 200:
                raise await self._refusal(response, body, deadline)
            if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
                error = EvaluationError("its provider answered with something that is no event stream")
                error.add_note(await self._said(body, deadline))
                raise error
            await self._read(body, hear, deadline)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                await _close(response, body)

    def _request(self, messages: Sequence[Mapping[str, str]]) -> httpx.Request:
        headers = {
            "accept": "text/event-stream",
            # A compressed stream would come in blocks, and could be larger than it looks.
            "accept-encoding": "identity",
            "user-agent": f"broker/{__version__}",
        }
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        settings = self.settings
        return self._http.build_request(
            "POST",
            f"{settings.base_url}/chat/completions",
            json={**settings.parameters, "model": settings.model, "messages": messages, "stream": True},
            headers=headers,
            timeout=httpx.Timeout(settings.silence_seconds, connect=min(CONNECT_SECONDS, settings.silence_seconds)),
        )

    async def _read(self, body: AsyncIterator[bytes], hear: Callable[[str], Awaitable[None]], deadline: float) -> None:
        completion = ChatCompletion()
        while not completion.is_whole:
            for piece in await self._next(completion, body, deadline):
                await hear(piece)

    async def _next(self, completion: ChatCompletion, body: AsyncIterator[bytes], deadline: float) -> list[str]:
        """The pieces in what the network gives next; it may have ended."""
        data = b""
        try:
            linger = trio.current_time() + LINGER_SECONDS if completion.is_finished else math.inf
            with trio.move_on_at(min(deadline, linger)) if completion.is_finished else self._network(deadline):
                data = await anext(body, b"")
        except httpx.HTTPError:
            pass  # only behind the model's last word, where it does not matter how the connection ends
        return completion.feed(data) if data else completion.end()

    async def _refusal(self, response: httpx.Response, body: AsyncIterator[bytes], deadline: float) -> EvaluationError:
        status = response.status_code
        why = _REFUSALS.get(status, "its provider failed" if status >= 500 else "its provider did not answer as asked")
        error = EvaluationError(f"{why} (HTTP {status})")
        if status not in (401, 403):  # these may quote a part of the key
            error.add_note(await self._said(body, deadline))
        return error

    async def _said(self, body: AsyncIterator[bytes], deadline: float) -> str:
        """What an answer that is none says, for the log; what came of it, where it breaks off."""
        found = bytearray()
        try:
            while len(found) < REFUSAL_MAX_BYTES:
                with self._network(min(deadline, trio.current_time() + CLOSE_SECONDS)):
                    data = await anext(body, b"")
                if not data:
                    break
                found += data
        except EvaluationError:
            pass
        return said(bytes(found[:REFUSAL_MAX_BYTES]))

    @contextmanager
    def _network(self, deadline: float) -> Iterator[None]:
        """Around one step of the network: what goes wrong there, in words for watchers."""
        try:
            with trio.fail_at(deadline):
                yield
        except trio.TooSlowError:
            raise EvaluationError(f"it did not finish within {self.settings.timeout_seconds:g} s") from None
        except httpx.ConnectTimeout:
            raise EvaluationError("its provider cannot be reached in time") from None
        except httpx.TimeoutException:
            raise EvaluationError(f"it was silent for {self.settings.silence_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as caught:
            reached = not isinstance(caught, httpx.ConnectError)
            error = EvaluationError("the connection broke" if reached else "its provider cannot be reached")
            error.add_note(ascii(str(caught))[1:-1])
            raise error from None


async def _close(response: httpx.Response, body: AsyncIterator[bytes]) -> None:
    """Close the connection, and end the body that is read from it.

    The body is a nest of generators, httpx's around httpcore's, of which `aclose` would end the outer one
    only; trio complains of the rest. An error that starts inside ends all: here that of reading what is closed.
    """
    try:
        await response.aclose()
        async for _ in body:
            pass
    except (httpx.HTTPError, httpx.StreamError):
        pass
