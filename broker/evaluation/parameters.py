"""Parameters: what a client sent along with its request, checked before a model is asked.

Bounds: `TEXT_MAX_CHARACTERS` in each text, because every model is paid for reading all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from broker.errors import EvaluationError
from broker.evaluation.completion import without_surrogates

TEXT_MAX_CHARACTERS = 400_000


def texts_of(parameters: Mapping[str, Any], required: Sequence[str], objects: Sequence[str] = ()) -> dict[str, str]:
    """The required texts, and of `objects` those that are there, as JSON; by name, fit for a prompt.

    Raises:
        EvaluationError: one is missing, empty, of another type, or too long.
    """
    missing = [name for name in required if parameters.get(name) in (None, "")]
    if missing:
        raise EvaluationError(f"Missing required parameters: {', '.join(missing)}")
    texts: dict[str, str] = {}
    for name in required:
        if not isinstance(parameters[name], str):
            raise EvaluationError(f"{name} must be text")
        texts[name] = without_surrogates(parameters[name])
    for name in objects:
        value = parameters.get(name)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise EvaluationError(f"{name} must be a JSON object")
        texts[name] = without_surrogates(json.dumps(value, ensure_ascii=False))
    for name, text in texts.items():
        if len(text) > TEXT_MAX_CHARACTERS:
            raise EvaluationError(f"{name} has {len(text)} characters; at most {TEXT_MAX_CHARACTERS} are taken")
    return texts
