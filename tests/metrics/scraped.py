"""A scrape as a test reads it: with Prometheus' own parser."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.actors.daemon_process import DaemonProcess

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(daemon: DaemonProcess, token: str | None = None) -> str:
    """The text."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(daemon.url + "/metrics", headers=headers), timeout=5) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return str(answer.read().decode())


def families_of(text: str) -> dict[str, Metric]:
    """By the name in the list, which for a counter ends in `_total`."""
    found = list(text_string_to_metric_families(text))
    named = {family.name + ("_total" if family.type == "counter" else ""): family for family in found}
    assert len(named) == len(found), "a metric is there twice"
    return named


def samples_of(text: str) -> Samples:
    found = [sample for family in families_of(text).values() for sample in family.samples]
    samples = {(sample.name, frozenset(sample.labels.items())): float(sample.value) for sample in found}
    assert len(samples) == len(found), "a sample is there twice"
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]
