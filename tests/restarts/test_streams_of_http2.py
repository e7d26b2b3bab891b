"""HTTP/2 and evaluations at a restart, and a certificate that changes by a reload."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path
from threading import Thread

from h2.errors import ErrorCodes

from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.restarts.conftest import Row
from tests.tls.certificates import Authority, Pair
from tests.tls.http2_client import Http2Client

END = "-----END CERTIFICATE-----\n"


def shown(client: Http2Client) -> bytes | None:
    """The certificate of a connection."""
    return client.sock.getpeercert(binary_form=True)


def test_a_new_certificate_and_a_takeover(redis_server: RedisServer, row: Row, folder: Path) -> None:
    authority = Authority(folder)
    pairs = authority.issue("one"), authority.issue("two")
    file = folder / "broker.toml"

    def write(pair: Pair) -> None:
        file.write_text(f'[listen.tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n')

    def connect() -> Http2Client:
        return Http2Client.connect(old.port, authority.client_context("h2"))

    write(pairs[0])
    # A goodbye each second, so that there is time to look.
    flags = (
        "--daemon-drain-clients-per-second",
        "1",
        "--daemon-drain-seconds",
        "10",
        "--evaluations-start-seconds",
        "60",
    )
    old = row.first(redis_server.url, "--config", str(file), *flags)
    with connect() as client:
        first, second = client.subscribe("feed:1", "feed:2")
        asked = client.ask("/api/stream/evaluate-creative?creativeId=1&content=x&type=creative")
        client.pump(lambda: client.streams[asked].data)
        before = shown(client)
        assert before == ssl.PEM_cert_to_DER_cert(pairs[0].certificate.read_text().partition("-----END")[0] + END)

        write(pairs[1])
        old.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "settings read again" in old.log())
        with connect() as another:
            assert shown(another) != before
            assert another.get("/health").status == 200
        assert client.get("/health").status == 200

        new = row.after(old)
        starting = Thread(target=new.start, daemon=True)
        starting.start()
        client.pump(lambda: b'"server_shutdown"' in client.streams[first].data)
        late = client.answer(client.ask("/api/stream?channel=feed:3"))
        assert (late.status, late.reset) == (0, ErrorCodes.REFUSED_STREAM)
        for id in (first, second, asked):
            seen = client.answer(id)
            assert (seen.is_ended, seen.reset) == (True, None)
            last = bytes(seen.data).rstrip(b"\n").split(b"\n\n")[-1]
            assert last.startswith(b"retry: ")
            assert b'"server_shutdown"' in last
        client.await_close()
        assert client.goaway == ErrorCodes.NO_ERROR
        starting.join()
    assert old.process.wait(30) == 0
    with connect() as client:
        assert client.get("/health").status == 200
