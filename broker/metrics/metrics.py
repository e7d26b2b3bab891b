"""The figures of this process and of its siblings, as Prometheus reads them: version 0.0.4 of the text format.

Where a daemon has several workers, whichever is asked asks the others for their own text. Every sample then has a label
`worker`, and all of one metric stand together, as the format wants it. A worker that does not answer is missing.

Prometheus' library is loaded with the web app, once the doors are open.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from math import inf

import trio
from attrs import define

from broker.histogram import Histogram
from broker.metrics.metriclist import COUNTER, METRICS, Metric, Values
from broker.metrics.scrape import Scrape, Sources, scrape
from broker.post.siblings import Siblings

SELF_PATH = "/metrics/self"
_SAMPLE = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")


@define(eq=False)
class Metrics:
    """Answers `/metrics`.

    Args:
        siblings: the other workers; they ask at `SELF_PATH`.
    """

    _sources: Sources
    _siblings: Siblings

    def __attrs_post_init__(self) -> None:
        self._siblings.answers[SELF_PATH] = self.own

    async def text(self) -> bytes:
        """The figures of all workers. Takes what the others may take to answer."""
        own = await self.own()
        others = await self._siblings.ask(SELF_PATH)
        if self._siblings.slots == 1:
            return own
        return merged({self._siblings.slot: own, **dict(others)})

    async def own(self) -> bytes:
        """The figures of this process."""
        found = await scrape(self._sources, time.time())
        await trio.lowlevel.checkpoint()
        return rendered(found)


def rendered(found: Scrape) -> bytes:
    """The text of one scrape."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector

    def family_of(metric: Metric, value: Values) -> Family:
        name, meaning, labels = metric.name, metric.meaning, [metric.label] if metric.label else []
        if isinstance(value, Histogram):
            buckets = [(str(bound) if bound < inf else "+Inf", float(count)) for bound, count in value.rising()]
            return HistogramMetricFamily(name, meaning, buckets=buckets, sum_value=value.total)
        kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
        family = kind(name, meaning, labels=labels)
        if isinstance(value, Mapping):
            for label, number in value.items():
                family.add_metric([label], float(number))
        elif value is not None:
            family.add_metric([], float(value))
        return family

    class Found(Collector):
        def collect(self) -> list[Family]:
            drawn = ((metric, metric.draw(found)) for metric in METRICS)
            return [family_of(metric, value) for metric, value in drawn if value is not None]

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Found())
    return generate_latest(registry)


def merged(texts: Mapping[int, bytes]) -> bytes:
    """One text of several, by slot: each sample has its worker's."""
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for slot, text in sorted(texts.items()):
        family = b""
        for line in text.splitlines():
            if line.startswith(b"# HELP "):
                family = line.split(b" ", 3)[2]
                samples.setdefault(family, [])
                heads[family] = [line]
            elif line.startswith(b"# TYPE "):
                heads[family].append(line)
            else:
                found = _SAMPLE.fullmatch(line)
                if found is not None:
                    labels = b",".join(filter(None, (b'worker="%d"' % slot, found[2])))
                    samples[family].append(b"%b{%b} %b" % (found[1], labels, found[3]))
    return b"".join(b"\n".join((*heads[family], *lines)) + b"\n" for family, lines in samples.items())
