"""Measure the daemon: `python -m tests.bench [--clients N] [--only PART]`, or `make bench`.

CPU is what the kernel charged to a process (Linux only), so it holds on a noisy machine where seconds do not;
deliveries a second are bounded by this load generator too, which is Python. What is compared was measured in
turns within one run.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.bursts import bursts
from tests.bench.connects import connects
from tests.bench.figure import show
from tests.bench.floods import floods
from tests.bench.loads import table
from tests.bench.place import opened
from tests.bench.publishcost import publish_cost
from tests.bench.publishing import PAYLOAD_BYTES
from tests.bench.reconnects import reconnects
from tests.bench.scrapes import scrapes
from tests.bench.slowclients import slow_clients
from tests.bench.tls import tls
from tests.bench.tokens import tokens
from tests.bench.workers import two_workers

PARTS = (
    "loads",
    "bursts",
    "publish",
    "slow",
    "reconnects",
    "connects",
    "tokens",
    "tls",
    "floods",
    "scrapes",
    "workers",
)
STORM_CLIENTS = 2000
FLOOD_CLIENTS = 2000
FLOODED_CLIENTS = 100
SCRAPED_CLIENTS = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    arguments = parser.parse_args()
    clients, parts = arguments.clients, arguments.only or PARTS
    begun, descriptors = time.monotonic(), _descriptors()
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder, opened(Path(folder)) as place:
        system = f"{platform.machine()}, {platform.system()} {platform.release()}"
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        print(f"{platform.node()}: {os.cpu_count()} cores, {system}, load {load}")
        print(
            f"Python {platform.python_version()}, Redis or Valkey {place.redis_version},"
            f" {PAYLOAD_BYTES}-byte messages\n"
        )
        wrong = table(place, clients) if "loads" in parts else 0
        print(f"\n{'channels with history':70} {'measured':>12} {'':5} bound")
        if "bursts" in parts:
            for transport in ("websocket", "broker.v1", "sse"):
                wrong += show(*bursts(place, transport, clients))
        if "publish" in parts:
            wrong += show(*publish_cost(place))
        if "slow" in parts:
            wrong += show(*slow_clients(place, clients, max(1, clients // 10)))
        if "reconnects" in parts:
            storm = min(STORM_CLIENTS, descriptors - 200)
            for transport in ("broker.v1", "sse"):
                wrong += show(*reconnects(place, transport, storm))
        if "connects" in parts:
            for transport in ("websocket", "sse"):
                wrong += show(*connects(place, transport, clients // 2))
        if "tokens" in parts:
            for transport in ("websocket", "sse"):
                wrong += show(*tokens(place, transport, clients // 2))
        if "tls" in parts:
            for transport in ("websocket", "sse"):
                wrong += show(*tls(place, transport, clients // 2))
        if "floods" in parts:
            wrong += show(*floods(place, min(FLOOD_CLIENTS, (descriptors - 500) // 3), FLOODED_CLIENTS))
        if "scrapes" in parts:
            wrong += show(*scrapes(place, min(SCRAPED_CLIENTS, descriptors - 200)))
        if "workers" in parts:
            wrong += show(*two_workers(place, clients))
    print(f"\n{time.monotonic() - begun:.0f} s", "" if not wrong else f"; {wrong} events were WRONG", sep="")
    return 1 if wrong else 0


def _descriptors() -> int:
    """As many as this process may have open, from here on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


if __name__ == "__main__":
    sys.exit(main())
