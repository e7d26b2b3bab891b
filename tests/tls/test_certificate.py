"""The certificate: what is wrong with the files is told at the start, and a change of them reaches new handshakes."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.config.access import ListenTls
from broker.errors import ConfigError
from broker.tls import Certificate, CertificateStatistics
from broker.tlssocket import TlsSocket
from tests.tls.certificates import Authority, TlsPeer


def problem_of(settings: ListenTls) -> str:
    with pytest.raises(ConfigError) as caught:
        Certificate(settings)
    return str(caught.value)


def shown(certificate: Certificate, authority: Authority) -> int:
    """The serial number of what a new client is shown."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs, TlsSocket(ours, certificate.context) as server:
        peer = TlsPeer(theirs, authority.client_context())
        peer.shake(server)
        found = peer.tls.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)


def test_what_is_wrong_with_the_files_is_said(authority: Authority, tmp_path: Path) -> None:
    pair, other = authority.issue("one"), authority.issue("other")
    missing, empty, garbage = tmp_path / "missing", tmp_path / "empty", tmp_path / "garbage"
    empty.write_bytes(b"")
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked"
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    def of(certificate: Path, key: Path) -> ListenTls:
        return ListenTls(certificate=str(certificate), key=str(key))

    assert problem_of(of(missing, pair.key)) == (
        f"listen.tls.certificate: cannot read {missing}: No such file or directory"
    )
    assert problem_of(of(pair.certificate, missing)) == (
        f"listen.tls.key: cannot read {missing}: No such file or directory"
    )
    assert problem_of(of(empty, pair.key)) == (
        f"listen.tls.certificate: {empty} holds no certificate; it must be a PEM file"
    )
    assert problem_of(of(garbage, pair.key)).startswith(
        f"listen.tls.key: {garbage} and {pair.key} are no certificate and key that OpenSSL can use: "
    )
    assert problem_of(of(pair.certificate, other.key)) == (
        f"listen.tls.key: the key in {other.key} is not that of the certificate in {pair.certificate}; "
        "name the two that belong together"
    )
    assert problem_of(of(pair.certificate, locked)) == (
        f"listen.tls.key: the key in {locked} is encrypted; write it without a password, mode 600"
    )
    assert problem_of(ListenTls(certificate=str(pair.certificate))).startswith("listen.tls.certificate: ")


def test_both_may_be_in_one_file(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue()
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert shown(Certificate(ListenTls(certificate=str(both))), authority)


def test_new_files_are_shown_to_new_clients(authority: Authority) -> None:
    certificate = Certificate(authority.issue().settings)
    before = shown(certificate, authority)
    certificate.refresh()
    assert (shown(certificate, authority), certificate.statistics().reloads) == (before, 0)
    authority.issue()
    certificate.refresh()
    after = shown(certificate, authority)
    assert after != before
    assert (certificate.statistics().reloads, certificate.statistics().failed_reloads) == (1, 0)


def test_a_pair_that_is_half_written_is_complained_of_only_if_it_stays(authority: Authority) -> None:
    pair = authority.issue()
    certificate = Certificate(pair.settings)
    before, old_key = shown(certificate, authority), pair.key.read_bytes()
    with structlog.testing.capture_logs() as logs:
        authority.issue()
        new_key = pair.key.read_bytes()
        pair.key.write_bytes(old_key)
        certificate.refresh()
        pair.key.write_bytes(new_key)
        certificate.refresh()
    after = shown(certificate, authority)
    assert after != before
    assert [entry["event"] for entry in logs] == ["new certificate"]

    with structlog.testing.capture_logs() as logs:
        os.unlink(pair.key)
        for _ in range(5):
            certificate.refresh()
    assert shown(certificate, authority) == after
    assert [(entry["log_level"], entry["event"], entry["problem"]) for entry in logs] == [
        (
            "error",
            "the new certificate cannot be used; the one before stays",
            f"listen.tls.key: cannot read {pair.key}: No such file or directory",
        )
    ]
    pair.key.write_bytes(new_key)
    certificate.refresh()
    statistics = certificate.statistics()
    assert statistics == CertificateStatistics(statistics.expires_at, 2, 1)


def test_a_link_that_points_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As certbot renews."""
    names = [authority.issue("1"), authority.issue("2")]
    links = authority.issue("live")
    for turn, pair in enumerate(names):
        for link, target in ((links.certificate, pair.certificate), (links.key, pair.key)):
            link.unlink()
            link.symlink_to(target)
        if turn == 0:
            certificate = Certificate(links.settings)
            before = shown(certificate, authority)
    certificate.refresh()
    assert shown(certificate, authority) != before


@pytest.mark.parametrize(
    ("days", "warning"),
    [(-1, "the certificate has expired"), (3, "the certificate expires soon"), (30, None)],
)
def test_the_end_of_a_certificate_is_warned_of_once_a_day(tmp_path: Path, days: int, warning: str | None) -> None:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    issued = trustme.CA().issue_cert("localhost", not_after=ends)
    file = tmp_path / "file.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    now = time.time()
    with structlog.testing.capture_logs() as logs:
        certificate = Certificate(ListenTls(certificate=str(file)), lambda: now)
        certificate._warn_of_expiry()
        now += 86_400
        certificate._warn_of_expiry()
    found: list[Any] = [(entry["log_level"], entry["event"]) for entry in logs]
    assert found[:1] == ([("warning", warning)] if warning else [])
    assert len(found) == (2 if warning else 0)
    assert certificate.statistics().expires_at == pytest.approx(ends.timestamp(), abs=1)


def test_the_context_refuses_what_is_unsafe(authority: Authority) -> None:
    context = Certificate(authority.issue().settings).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    # TLS 1.2: HTTP/2 allows no other kinds (RFC 9113, appendix A).
    for cipher in context.get_ciphers():
        assert cipher["aead"], cipher
        assert cipher["protocol"] == "TLSv1.3" or cipher["kea"] == "kx-ecdhe", cipher
