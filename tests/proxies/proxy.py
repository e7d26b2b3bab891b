"""nginx and Caddy as programs, run with the very files of conf/; only names, ports and certificates are put in.

They run as this user, with everything they write in a folder of the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from tests.actors.redis_server import free_port
from tests.tls.certificates import Authority

CONF = Path(__file__).resolve().parents[2] / "conf"
START_SECONDS = 10.0
NGINX_AROUND = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_types text/event-stream application/json;
    include {folder}/broker.conf;
}}
"""


def program(name: str) -> str | None:
    """Where it is installed; Debian keeps nginx out of a user's PATH."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


@define(eq=False)
class ProxyProcess:
    """One proxy in front of a daemon on `upstream`.

    Args:
        name: nginx or caddy.
    """

    name: str
    folder: Path
    upstream: int
    authority: Authority
    port: int = field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Write its settings, start it, and wait until it listens."""
        found = program(self.name)
        assert found is not None
        command = self._nginx(found) if self.name == "nginx" else self._caddy(found)
        places = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **places})
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(f"{self.name} did not start:\n{self.log_path.read_text()}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        """At once: Caddy would wait for its connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if self.name == "caddy" else signal.SIGTERM)
            self._process.wait(10)

    def _nginx(self, found: str) -> list[str]:
        pair = self.authority.issue("nginx")
        live = "/etc/letsencrypt/live/events.example.com"
        written = _replaced(
            CONF / "nginx.conf",
            {
                "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
                "listen [::]:443 ssl http2;": "",
                "server_name events.example.com;": "server_name localhost;",
                f"{live}/fullchain.pem": str(pair.certificate),
                f"{live}/privkey.pem": str(pair.key),
                "/var/log/nginx/broker.log": str(self.folder / "access.log"),
                "server 127.0.0.1:8000 ": f"server 127.0.0.1:{self.upstream} ",
            },
        )
        (self.folder / "broker.conf").write_text(written)
        (self.folder / "nginx.conf").write_text(NGINX_AROUND.format(folder=self.folder))
        return [found, "-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", "nginx.conf"]

    def _caddy(self, found: str) -> list[str]:
        pair = self.authority.issue("caddy")
        written = _replaced(
            CONF / "Caddyfile",
            {
                "\nevents.example.com {": f"\nhttps://localhost:{self.port} {{\n\ttls {pair.certificate} {pair.key}",
                "reverse_proxy 127.0.0.1:8000 ": f"reverse_proxy 127.0.0.1:{self.upstream} ",
            },
        )
        around = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
        (self.folder / "Caddyfile").write_text(around + written)
        return [found, "run", "--adapter", "caddyfile", "--config", str(self.folder / "Caddyfile")]


def _replaced(file: Path, values: Mapping[str, str]) -> str:
    """The text with each of `values` put in; each is there once, or the test no longer tests the file."""
    text = file.read_text()
    for old, new in values.items():
        assert text.count(old) == 1, f"{file.name} has {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    return text
