"""Row 9: four EventSource clients of others are sent what ends lines, begins fields and breaks decoders."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from tests.actors.daemon_process import DaemonProcess
from tests.actors.event_readers import READERS, EventReader, Heard
from tests.actors.peers import wait_until
from tests.actors.raw_client import RawClient, head, text
from tests.actors.redis_server import RedisServer
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until
from tests.fuzz.reading import as_lines

CHANNEL = "odd:a.b@c=d+e~f-_1"  # every kind of character that a name may have
RAW = "raw:1"
# CR, LF, NUL, VT, FF, ESC, DEL, NEL, LS, PS, BOM, the last of the first plane, one beyond it, and what SSE is made of.
LETTERS = ("\r\n", "\r", "\n", "\0", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\uffff")
LETTERS += ("\U0001f600", "\U0010ffff", "\u00e9", ":", " ", "\t", "data:", "data: x", "event: injected", "id: 9:9:9")
LETTERS += ("id: \0", "retry: 1", ": comment", "{", "}", '"', "\\", "a")
ATTACK = "a{0}data: x{0}{0}event: injected{0}id: 9:9:9{0}retry: 1{0}data: x{0}{0}:{0}data{0}{0}"
# "a" alone makes a name that is one.
ODD_NAMES = tuple(f"odd:a{letter}" for letter in (*LETTERS, ATTACK.format("\n"), ATTACK.format("\r")) if letter != "a")
DOORS = ("/api/stream?channel=", "/api/stream?protocol=broker.v1&channel=", "/ws")
POSITION = re.compile(r"[0-9]+:[0-9]+:[0-9]+")
CURSOR = re.compile(r"c1(,[\w~.-]+=[0-9]+:[0-9]+:[0-9]+)+")
BATCH = 100
WAIT_SECONDS = 30.0


def play(stage: Stage) -> None:
    server = stage.redis()
    kept = ("--type", "odd.history_length=10000", "--type", "odd.history_seconds=600")
    daemon = stage.daemon(server.url, *kept, "--type", "raw.validate=off")
    begun = f"{daemon.url}/api/stream?"
    name, was = f"channel={quote(CHANNEL)}", quote(ATTACK.format("\n"))
    # One with positions, one of text that need not be JSON, one with cursors and envelopes; a client says where it was.
    urls = (
        f"{begun}{name}",
        f"{begun}channel={RAW}",
        f"{begun}protocol=broker.v1&{name}&channel={RAW}&lastEventId={was}",
    )
    lacking = [why for reader in READERS if (why := reader.missing())]
    clients = [reader(urls) for reader in READERS if not reader.missing()]
    texts, objects = payloads(stage.dice, stage.pick(1000, 30))
    try:
        read(clients, server, texts, objects)
        misnamed = list(wrong_refusals(daemon))
    finally:
        for client in clients:
            client.close()
        daemon.stop()
        for client in clients:
            client.join()

    wrong = dict.fromkeys(("not equal", "injected", "id"), 0)
    compared = 0
    for client in clients:
        for kind, line in faults_of(client, texts, objects):
            wrong[kind] += 1
            stage.faults.append(f"{type(client).__name__}: {line}")
        compared += sum(map(len, client.heard))
    stage.note = "; ".join(lacking)
    # Two of them are Python packages, which are always there.
    stage.at_least("clients", len(clients), stage.pick(len(READERS), 2))
    stage.exactly("events published", len(texts) + len(objects), stage.pick(2000, 60))
    stage.at_least("events compared", compared, len(clients) * 4 * len(texts))
    stage.exactly("events lost or not equal", wrong["not equal"], 0)
    stage.exactly("events injected", wrong["injected"], 0)
    stage.exactly("ids that are not the daemon's", wrong["id"], 0)
    asked = len(ODD_NAMES) * len(DOORS)
    stage.faults += misnamed
    stage.exactly("odd names of channels refused", asked - len(misnamed), asked)


def read(clients: Sequence[EventReader], server: RedisServer, texts: Sequence[bytes], objects: Sequence[bytes]) -> None:
    """Publish, in portions, each once all clients have the one before."""
    for client in clients:
        client.open()
    for client in clients:
        # The third stream is also told that its place is none, for each of its channels.
        wait_until(lambda client=client: client.has((1, 1, 3)), WAIT_SECONDS)
    before = [[len(each) for each in client.heard] for client in clients]
    # Nobody can ask for these; who records what is published in Redis, and who listens there, sees them.
    for name in ODD_NAMES:
        server.publish(name, b'{"type":"odd","text":"injected"}')
    for at in range(0, len(texts), BATCH):
        server.publish(RAW, *texts[at : at + BATCH])
        server.publish(CHANNEL, *objects[at : at + BATCH])
        sent = min(at + BATCH, len(texts))
        for client, base in zip(clients, before, strict=True):
            due = (base[0] + sent, base[1] + sent, base[2] + 2 * sent)
            if math.isinf(seconds_until(lambda client=client, due=due: client.has(due), WAIT_SECONDS)):
                return  # what is missing is counted


def payloads(dice: random.Random, count: int) -> tuple[list[bytes], list[bytes]]:
    """Texts for a channel on which anything goes, and as many JSON objects."""
    texts = [ATTACK.format(letter) for letter in LETTERS[:12]]
    texts += ["".join(dice.choices(LETTERS, k=dice.randrange(20))) for _ in range(count - len(texts))]
    return [text.encode() for text in texts], [json_of(dice, text) for text in texts]


def json_of(dice: random.Random, text: str) -> bytes:
    """An object with a text in it, also as its `id`: letters as themselves or escaped, and line ends between."""
    escaped = json.dumps(text + dice.choice(("", "\ud800", "\udfff\ud800")))
    plain = json.dumps(text, ensure_ascii=False)
    space = dice.choice(("", " ", "\n", "\r\n", "\r", "\r\r\n\n"))
    value = dice.choice((escaped, plain))
    return f'{{{space}"type":{space}"odd",{space}"id":{value},"text":{value}{space}}}{space}'.encode()


def faults_of(client: EventReader, texts: Sequence[bytes], objects: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """What it heard that was not published, or not so."""
    with_positions, of_raw, enveloped = (list(events(stream)) for stream in client.heard)
    yield from differences("positions", [event.data for event in with_positions], list(map(as_lines, objects)))
    yield from differences("raw", [event.data for event in of_raw], list(map(as_lines, texts)))
    told = []
    for event in enveloped:
        try:
            told.append(json.loads(event.data))
        except ValueError:
            yield "injected", f"no envelope: {event.data!a}"
    for name, due in ((CHANNEL, [json.loads(each) for each in objects]), (RAW, [enveloped_as(each) for each in texts])):
        yield from differences(name, [each["event"] for each in told if each["channel"] == name], due)
    yield from (("injected", ascii(each)) for each in told if each["channel"] not in (CHANNEL, RAW))
    for event in with_positions:
        if not POSITION.fullmatch(event.id):
            yield "id", f"id {event.id!a}"
    for event in enveloped:
        # An event of a channel without history has none; EventSource then tells the last one.
        if not CURSOR.fullmatch(event.id or "c1,a=1:1:1"):
            yield "id", f"id {event.id!a}"
    for stream, known in zip(client.heard, ({"message"}, {"message"}, {"message", "gap"}), strict=True):
        yield from (("injected", f"{event!a}") for event in stream if event.kind not in known)


def enveloped_as(published: bytes) -> object:
    """Text that is no JSON is a string in an envelope; dice now and then throw a text that is."""
    try:
        return json.loads(published)
    except ValueError:
        return published.decode()


def wrong_refusals(daemon: DaemonProcess) -> Iterator[str]:
    """Ask for channels of names that cannot be. What is no clear refusal, or has more lines than others have."""
    expected = None
    for name in ODD_NAMES:
        for door in DOORS[:2]:
            with RawClient.connect(daemon.port) as client:
                client.send(head(f"GET {door}{quote(name, safe='')} HTTP/1.1".encode(), b"Connection: close"))
                lines, _, body = client.read_to_end().partition(b"\r\n\r\n")
            # Each line of the head but for what it says: the status, and the names of the others.
            shape = [lines[:12], *(line.partition(b":")[0] for line in lines.splitlines()[1:])]
            expected = expected or shape
            if shape != expected or shape[0] != b"HTTP/1.1 400" or not is_clear(body, "error", "detail", "hint"):
                yield f"{door}{name!a}: answered {lines + body!a}"
        with RawClient.websocket(daemon.port) as client:
            client.send(text({"type": "subscribe", "channel": name}))
            answer = client.frame()
            if answer.json()["type"] != "error" or not is_clear(answer.payload, "code", "message"):
                yield f"/ws, {name!a}: answered {answer.payload!a}"


def is_clear(answer: bytes, *fields: str) -> bool:
    """JSON without a control character, so one line; it has these fields, and says what is wrong with the name."""
    said = json.loads(answer)
    is_named = any(b"channel '" in answer and why in answer for why in (b"is not allowed", b"empty part", b"parts;"))
    return min(answer) >= 0x20 and all(said.get(each) for each in fields) and is_named


def events(stream: Sequence[Heard]) -> Iterator[Heard]:
    """What is not the daemon's own."""
    for event in stream:
        own = event.data.startswith(('{"type":"connected"', '{"type":"server_shutdown"'))
        if event.kind == "message" and not own:
            yield event


def differences(where: str, found: Sequence[object], due: Sequence[object]) -> Iterator[tuple[str, str]]:
    for one, other in zip(found, due, strict=False):
        if one != other:
            yield "not equal", f"{where}: {one!a}, and was {other!a}"
    if len(found) < len(due):
        yield "not equal", f"{where}: {len(due) - len(found)} are missing"
    for one in found[len(due) :]:
        yield "injected", f"{where}: {one!a}"


ROW = Row(
    9,
    "EventSource clients get each event as it was published, and no other, whatever is in it",
    "Chromium, npm eventsource, httpx-sse and sseclient-py; 2000 events with CR, LF, NUL, U+0085, U+2028, BOM, astral "
    "and lone surrogates in data and in ids, over streams with positions, with cursors and of plain text, on a channel "
    "with every character that a name may have; names with any other are asked for and published on",
    "equal byte for byte; no injected event; every other name refused in one line",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
