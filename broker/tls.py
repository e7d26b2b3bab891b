"""The certificate that the daemon shows, read again when its files change.

A new handshake takes the newest pair that was good; connections that are there keep theirs. Tools write certificate
and key one after the other, so a pair that does not fit is tried once more before it is complained of: one line
for each state of the files. TLS 1.2 has only the ciphers that HTTP/2 allows (RFC 9113, 9.2.2): all with forward
secrecy. No renegotiation, no compression, no early data.

Bounds: two small files are looked at every `check_seconds`, and read in the loop.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from datetime import datetime

import structlog
import trio
from attrs import define, field, frozen

from broker.config.access import ListenTls
from broker.errors import ConfigError, Problem

log = structlog.get_logger(__name__)

PROTOCOLS = ("h2", "http/1.1")
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_DAY_SECONDS = 86_400.0
_SOON_SECONDS = 7 * _DAY_SECONDS

_State = tuple[tuple[int, int, int] | None, ...]


@frozen
class CertificateStatistics:
    """A snapshot. `expires_at` is in seconds since 1970, of the pair in use."""

    expires_at: float
    reloads: int
    failed_reloads: int


@define(eq=False)
class Certificate:
    """The pair of files, and the context that is made of them.

    Raises:
        ConfigError: the files cannot be used; the problem says which, and why.
    """

    _settings: ListenTls
    _clock: Callable[[], float] = time.time
    context: ssl.SSLContext = field(init=False)
    _expires_at: float = field(init=False)
    _state: _State = field(init=False)
    _is_bad: bool = field(init=False, default=False)  # the state was tried, and does not work
    _is_complained_of: bool = field(init=False, default=False)
    _warned_at: float = field(init=False, default=float("-inf"))
    _reloads: int = field(init=False, default=0)
    _failed_reloads: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._state = self._look()
        self.context, self._expires_at = self._load()
        self._warn_of_expiry()

    def adapt(self, fresh: Certificate) -> None:
        """Go by the settings of one that was just made, for handshakes to come. Synchronous."""
        self._settings, self.context, self._expires_at = fresh._settings, fresh.context, fresh._expires_at
        self._state, self._is_bad, self._is_complained_of = fresh._state, False, False
        self._warned_at = float("-inf")

    async def watch(self) -> None:
        """Look at the files every `check_seconds`. Runs until cancelled."""
        while True:
            await trio.sleep(self._settings.check_seconds)
            self.refresh()
            self._warn_of_expiry()

    def refresh(self) -> None:
        """Read the files if they have changed. Synchronous; raises nothing: a bad pair leaves the one in use."""
        state = self._look()
        if state != self._state:
            self._state, self._is_bad, self._is_complained_of = state, False, False
        elif not self._is_bad or self._is_complained_of:
            return
        try:
            self.context, self._expires_at = self._load()
        except ConfigError as error:
            if self._is_bad:
                self._is_complained_of = True
                self._failed_reloads += 1
                log.error("the new certificate cannot be used; the one before stays", problem=str(error))
            self._is_bad = True
            return
        self._is_bad = False
        self._reloads += 1
        self._warned_at = float("-inf")
        log.info("new certificate", expires=_date(self._expires_at))

    def statistics(self) -> CertificateStatistics:
        return CertificateStatistics(self._expires_at, self._reloads, self._failed_reloads)

    @property
    def _files(self) -> tuple[str, str]:
        return self._settings.certificate, self._settings.key or self._settings.certificate

    def _look(self) -> _State:
        """What tells one state of the files from another; None for one that is not there."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._files:
            try:
                status = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(found)

    def _load(self) -> tuple[ssl.SSLContext, float]:
        certificate, key = self._files
        of_certificate = "listen.tls.certificate"
        of_key = "listen.tls.key" if self._settings.key else of_certificate
        text = _read(of_certificate, certificate)
        if key != certificate:
            _read(of_key, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(list(PROTOCOLS))
        if b"-----BEGIN CERTIFICATE" not in text:
            raise _problem(of_certificate, f"{certificate} holds no certificate; it must be a PEM file")
        try:
            context.load_cert_chain(certificate, key, _refuse_password)
        except _Encrypted:
            raise _problem(of_key, f"the key in {key} is encrypted; write it without a password, mode 600") from None
        except (ssl.SSLError, OSError, ValueError) as error:
            raise _problem(of_key, _advice(error, certificate, key)) from error
        return context, _expiry(text, certificate)

    def _warn_of_expiry(self) -> None:
        """Once a day, from a week before."""
        now = self._clock()
        if self._expires_at - now > _SOON_SECONDS or now - self._warned_at < _DAY_SECONDS:
            return
        self._warned_at = now
        what = "the certificate has expired" if self._expires_at <= now else "the certificate expires soon"
        log.warning(what, expires=_date(self._expires_at), file=self._settings.certificate)


class _Encrypted(Exception):
    """OpenSSL asks for a password, which nobody can give it here."""


def _refuse_password() -> str:
    raise _Encrypted


def _problem(where: str, what: str) -> ConfigError:
    return ConfigError([Problem(where, what)])


def _read(where: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _problem(where, f"cannot read {path}: {error.strerror}") from error


def _advice(error: Exception, certificate: str, key: str) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} is not that of the certificate in {certificate}; name the two that belong together"
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"the certificate in {certificate} is too weak ({reason}); use RSA of 2048 bits or more, or ECDSA"
    return f"{certificate} and {key} are no certificate and key that OpenSSL can use: {reason or error}"


def _expiry(text: bytes, path: str) -> float:
    """When the first certificate of the file ends. PyJWT brings `cryptography` along; `ssl` cannot read a file."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(text).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise _problem("listen.tls.certificate", f"{path} holds no certificate that can be read: {error}") from error


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
