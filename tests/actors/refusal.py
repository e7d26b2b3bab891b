"""What every error answer looks like."""

from __future__ import annotations

from tests.actors.raw_client import Answer, RawClient


def assert_refusal(answer: Answer, status: int, *, contains: str = "") -> Answer:
    """An error of that status, in JSON: `error`, `detail`, `hint`, and perhaps a `channel`; none of them empty."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json", answer
    body = answer.json()
    assert list(body) in (["error", "detail", "hint"], ["error", "detail", "hint", "channel"])
    assert all(body.values()), body
    assert contains in body["detail"], body
    return answer


def assert_refused(port: int, sent: bytes, status: int, *, contains: str = "") -> Answer:
    """Send it; it is refused with that status, and the connection closed."""
    with RawClient.connect(port) as client:
        client.try_send(sent)
        answer = assert_refusal(client.answer(), status, contains=contains)
        assert client.read_to_end() == b""
        return answer
