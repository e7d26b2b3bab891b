"""The dashboard, the alert rules, their runbooks and the table of metrics say the same as the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.metrics.metriclist import HISTOGRAM, METRICS
from tests.metrics.promql import names_in
from tests.metrics.table import DOCUMENT, document

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "conf" / "alerts.yml"
RUNBOOKS = (ROOT / "docs" / "alerts.md").read_text()
DASHBOARD = json.loads((ROOT / "conf" / "grafana-dashboard.json").read_text())
# What Prometheus adds, and what a daemon of several workers does.
EVERYWHERE = {"job", "instance", "worker"}
PROMETHEUS = {"up": set[str]()}


def known() -> dict[str, set[str]]:
    """The labels of each series that there is."""
    series: dict[str, set[str]] = dict(PROMETHEUS)
    for metric in METRICS:
        labels = {metric.label} - {""}
        if metric.kind == HISTOGRAM:
            series |= {f"{metric.name}_bucket": {"le"}, f"{metric.name}_sum": set(), f"{metric.name}_count": set()}
        else:
            series[metric.name] = labels
    return series


KNOWN = known()


def check_expression(expression: str) -> None:
    series, labels = names_in(expression)
    assert series, f"it asks for nothing: {expression}"
    assert series <= KNOWN.keys(), expression
    assert labels <= EVERYWHERE.union(*(KNOWN[each] for each in series)), expression


@pytest.mark.parametrize(
    ("expression", "series", "labels"),
    [
        ("up == 0", {"up"}, set()),
        ('sum by (a, le) (rate(x_bucket{job="y_z", b!~"c|d"}[5m])) > 1e6', {"x_bucket"}, {"a", "le", "job", "b"}),
        ("a and on (i) b or 2 * c unless time() - d offset 5m", {"a", "b", "c", "d"}, {"i"}),
    ],
)
def test_names_are_found_in_an_expression(expression: str, series: set[str], labels: set[str]) -> None:
    assert names_in(expression) == (series, labels)


@pytest.mark.parametrize(
    "expression",
    ["rate(broker_event_total[5m])", 'broker_gaps_total{why="x"}', "sum by (channel) (broker_clients)", "1"],
)
def test_an_expression_that_asks_for_what_is_not_there_is_found(expression: str) -> None:
    with pytest.raises(AssertionError):
        check_expression(expression)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_metrics_that_exist_and_has_a_runbook(alert: dict[str, Any]) -> None:
    check_expression(alert["expr"])
    name = alert["alert"]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
    assert alert["annotations"]["summary"]
    for label in re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]):
        series, _ = names_in(alert["expr"])
        assert label in EVERYWHERE.union(*(KNOWN[each] for each in series)), label
    assert re.search(rf"^## {name}\n\n.{{40,}}", RUNBOOKS, re.MULTILINE | re.DOTALL)


def test_a_runbook_is_for_an_alert_and_in_its_order() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE) == [alert["alert"] for alert in alerts()]


@pytest.mark.parametrize("text", [RUNBOOKS, DOCUMENT.read_text()], ids=["alerts", "metrics"])
def test_what_a_document_names_exists(text: str) -> None:
    counted = {name.removesuffix("_total") for name in KNOWN} | {metric.name for metric in METRICS}
    for name in re.findall(r"\b(?:broker|process)_[a-z_0-9]+\b", text):
        assert name in KNOWN or name in counted or name in ("broker_admin",), name
    for name, anchor in re.findall(r"\[(\w+)\]\(#(\w+)\)", text):
        assert anchor == name.lower()
        assert f"## {name}\n" in text


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def test_every_query_of_the_dashboard_asks_for_metrics_that_exist() -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    queries += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    for query in queries:
        check_expression(query)
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    for variable in variables:
        found = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable)
        assert found is not None, variable
        assert found[1] in KNOWN, variable
        assert found[2] in EVERYWHERE, variable
    assert len(queries) > 50


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    named = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == named
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["type"] in ("row", "stat", "timeseries")
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert [target["refId"] for target in panel["targets"]] == [
                chr(65 + i) for i in range(len(panel["targets"]))
            ]


def test_the_table_of_metrics_is_the_list() -> None:
    assert DOCUMENT.read_text() == document(), "python -m tests.metrics.table writes it anew"


def test_names_and_kinds_are_as_prometheus_wants_them() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"(broker|process)_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not re.search(r"_(milliseconds|ms|kb|mb|minutes)(_|$)", metric.name)
        assert metric.kind != HISTOGRAM or (metric.unit == "seconds" and not metric.label)
        assert metric.meaning.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed; it comes with Prometheus")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
