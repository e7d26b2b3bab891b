"""Whatever bytes come instead of HTTP/2, a connection ends by itself, and raises nothing."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import HeadersFrame

from broker.config.sections import Listen
from broker.outbox import close_socket
from broker.request import RequestRefused, answer, refusal_answer
from broker.visit import Visit, VisitorLeft
from broker.web.frametally import BUDGET, PREFACE_BYTES, FrameTally, TooMuch
from broker.web.http2 import Http2Counts
from broker.web.http2connection import Http2Connection

CASES = 150


async def attend(visit: Visit) -> None:
    try:
        request = await visit.read_request()
        body = await visit.read_body(request)
        await visit.write(answer(200, b"%d" % len(body), {}))
        await visit.linger()
    except RequestRefused as refused:
        await visit.write(refusal_answer(refused))
    except VisitorLeft:
        pass
    finally:
        visit.close()


def conversation(chance: random.Random) -> bytes:
    """What a well-behaved client sends, at random."""
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    client.initiate_connection()
    for _ in range(chance.randrange(1, 6)):
        id = client.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "https"), (":authority", "h"), (":path", "/a?b=" + "c" * 20)]
        head += [(f"x-{number}", "value") for number in range(chance.randrange(4))]
        client.send_headers(id, head)
        for _ in range(chance.randrange(3)):
            client.send_data(id, bytes(chance.randrange(200)), pad_length=chance.choice((None, 7)))
        end = chance.choice((client.end_stream, client.reset_stream, None))
        if end is not None:
            end(id)
        client.ping(b"12345678")
        client.increment_flow_control_window(100)
        client.prioritize(id, weight=16)
    return client.data_to_send()


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(24, len(changed)) if chance.random() < 0.9 else chance.randrange(len(changed))
        kind = chance.randrange(4)
        if kind == 0:
            changed[at] = chance.randrange(256)
        elif kind == 1:
            del changed[at : at + chance.randrange(1, 20)]
        elif kind == 2:
            changed[at:at] = chance.randbytes(chance.randrange(1, 20))
        else:
            changed[at:at] = changed[chance.randrange(len(changed)) :][:60]
        if len(changed) < 30:
            break
    return bytes(changed)


async def serve(data: bytes, chance: random.Random) -> Http2Counts:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    visit = Visit(ours, Listen(head_seconds=1.0, write_seconds=1.0), trio.current_time(), None, "https")
    counts = Http2Counts()
    connection = Http2Connection(visit, attend, 1.0, counts)
    with theirs, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve)
            while data:
                size = chance.choice((len(data), 50))
                try:
                    theirs.send(data[:size])
                except OSError:
                    break
                data = data[size:]
                await trio.lowlevel.checkpoint()
                try:
                    theirs.recv(1 << 16)
                except OSError:
                    pass
            await trio.lowlevel.checkpoint()
            theirs.shutdown(socket.SHUT_WR)
    close_socket(ours)
    assert counts.streams == 0
    return counts


@pytest.mark.parametrize("seed", range(4))
async def test_any_change_of_a_conversation_ends_quietly(seed: int) -> None:
    chance = random.Random(seed)
    served = 0
    for _ in range(CASES):
        served += (await serve(mutated(conversation(chance), chance), chance)).streams_served
    assert served > CASES / 10  # many get as far as a request


async def test_random_heads_end_quietly() -> None:
    chance = random.Random(5)
    whole = conversation(chance)
    for _ in range(CASES):
        block = chance.randbytes(chance.randrange(40))
        frame = HeadersFrame(21, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
        await serve(whole + frame, chance)


def frames(*heads: tuple[int, int, int]) -> Iterator[bytes]:
    for length, kind, flags in heads:
        yield length.to_bytes(3, "big") + bytes((kind, flags)) + b"\0\0\0\1" + bytes(length)


def test_frames_are_told_apart_however_the_bytes_come() -> None:
    data = bytes(PREFACE_BYTES) + b"".join(frames((10, 1, 0), (20, 9, 0), (5, 9, 4), (300, 0, 0), (8, 6, 0), (0, 0, 1)))
    for size in (1, 2, 7, 9, 24, 1000):
        tally = FrameTally(100, 0.0)
        for at in range(0, len(data), size):
            tally.take(data[at : at + size], 0.0)
        assert tally._budget == BUDGET - 3  # two CONTINUATIONs and a PING
        assert not tally.in_block
    tally = FrameTally(100, 0.0)
    tally.take(bytes(PREFACE_BYTES) + b"".join(frames((10, 1, 0))), 0.0)
    assert tally.in_block


def test_the_budget_comes_back_with_time_and_with_what_is_read() -> None:
    ping = b"".join(frames((8, 6, 0)))
    tally = FrameTally(100, 0.0)
    tally.take(bytes(PREFACE_BYTES) + ping * 2000, 0.0)
    tally.take(ping * 200, 1.0)
    tally.sent(50 * 1024)
    tally.take(ping * 50, 1.0)
    with pytest.raises(TooMuch, match="frames that carry nothing"):
        tally.take(ping, 1.0)


def test_a_head_is_bounded_over_all_its_frames() -> None:
    tally = FrameTally(100, 0.0)
    tally.take(bytes(PREFACE_BYTES) + b"".join(frames((60, 1, 0), (40, 9, 4), (60, 1, 0))), 0.0)
    with pytest.raises(TooMuch, match="a request head over the limit"):
        tally.take(b"".join(frames((41, 9, 4))), 0.0)
    with pytest.raises(TooMuch, match="a frame of 16385 bytes"):
        FrameTally(100, 0.0).take(bytes(PREFACE_BYTES) + (16385).to_bytes(3, "big") + bytes(6), 0.0)
