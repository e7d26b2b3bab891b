"""The OpenAPI document has every route of the daemon, and is whole. That its answers are given is row 24's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from broker import __version__
from broker.cli import group
from broker.events.openapi import openapi_document
from broker.inquiry import PATHS
from broker.request import RequestRefused
from broker.stream import ROOT, stream_of
from broker.web.app import create_app
from broker.web.services import Services

DOCUMENT = openapi_document()
COMPONENTS = DOCUMENT["components"]
# The names of parameters are the document's own.
ANY = "{}"


def in_document() -> set[tuple[str, str]]:
    return {
        (re.sub(r"\{\w+\}", ANY, path), method) for path, methods in DOCUMENT["paths"].items() for method in methods
    }


def of_the_web_app() -> set[tuple[str, str]]:
    app = create_app(cast(Services, SimpleNamespace(origins=None)))
    return {
        (re.sub(r"<[^>]+>", ANY, rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }


def of_streams() -> set[tuple[str, str]]:
    """Those that the daemon itself names to who asks for another."""
    with pytest.raises(RequestRefused) as caught:
        stream_of(f"{ROOT}/nothing", [], None, 1)
    paths = re.findall(r"/[^ ,?]+(?=[,?])", caught.value.hint)
    assert len(paths) == 6
    found = {(re.sub(r"<\w+>", ANY, path), "get") for path in paths}
    return (
        found
        | {(path, "post") for path in PATHS}
        | {(f"{path}/{ANY}", way) for path in PATHS for way in ("get", "post")}
    )


def test_every_route_is_in_it_and_no_other() -> None:
    assert in_document() == of_the_web_app() | of_streams() | {("/ws", "get")}


def test_every_reference_leads_somewhere_and_every_component_is_referred_to() -> None:
    references = set(references_in(DOCUMENT))
    for reference in references:
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    names = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in COMPONENTS[kind]}
    assert names == references


def test_every_schema_is_one() -> None:
    schemas = [*COMPONENTS["schemas"].values(), *schemas_in(DOCUMENT)]
    assert len(schemas) > 100
    for schema in schemas:
        Draft202012Validator.check_schema(schema)


def test_operations_have_names_of_their_own() -> None:
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z_]+", id) for id in ids)


def test_the_command() -> None:
    done = CliRunner().invoke(group, ["schema", "--openapi", "--host", "events.example.com:443"])
    assert json.loads(done.output) == openapi_document("events.example.com:443")
    assert (DOCUMENT["openapi"], DOCUMENT["info"]["version"]) == ("3.1.0", __version__)
    assert DOCUMENT["servers"] == [{"url": "http://127.0.0.1:8000"}]


@pytest.mark.parametrize(
    "arguments", [("alert", "--openapi"), ("--asyncapi", "--openapi"), ("--openapi", "--redis-host", "a:1")]
)
def test_flags_that_do_not_go_together(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(group, ["schema", *arguments]).exit_code == 2


def references_in(document: Any) -> Iterator[str]:
    for name, value in document.items() if isinstance(document, dict) else enumerate(document):
        if name == "$ref":
            yield value
        elif isinstance(value, dict | list):
            yield from references_in(value)


def schemas_in(document: Any) -> Iterator[Any]:
    for name, value in document.items() if isinstance(document, dict) else enumerate(document):
        if name == "schema":
            yield value
        elif isinstance(value, dict | list):
            yield from schemas_in(value)
