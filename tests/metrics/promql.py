"""What a PromQL expression asks for: the names of its series, and the labels that it uses on them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<range>\[[^\]]*\])
    |(?P<number>\d[\w.]*)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<mark>[^\s])""",
    re.VERBOSE,
)
_OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_WITH_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """Names of series, and labels of matchers and groupings."""
    series: set[str] = set()
    labels: set[str] = set()
    tokens = list(_tokens(expression))
    inside = ""  # a matcher or a list of labels, until its end
    for index, (kind, text) in enumerate(tokens):
        after = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if inside:
            if text == inside:
                inside = ""
            elif kind == "name" and (inside == ")" or after in ("=", "!")):
                labels.add(text)
        elif text == "{":
            inside = "}"
        elif kind == "name" and text in _WITH_LABELS:
            inside = ")" if after == "(" else ""
        elif kind == "name" and after not in ("(", "by", "without") and text not in _OPERATORS:
            series.add(text)
    assert not inside, expression
    return series, labels


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    for found in _TOKEN.finditer(expression):
        assert found.lastgroup is not None
        yield found.lastgroup, found[0]
