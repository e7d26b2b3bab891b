"""JSON from strangers, read so that it can mean one thing only: UTF-8, no name twice in an object, no NaN.

Values; no I/O. Bounds: what Python's own reader bounds, depth and the digits of a number; over it, ValueError too.
Source: RFC 8259; RFC 7519, 4 and RFC 7515, 4 (names must be unique).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def read_object(data: bytes) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ValueError: it is something else; the message says what, and shows nothing of it.
    """
    try:
        value = _DECODER.decode(data.decode())
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except _Refused:
        raise
    except ValueError:
        raise ValueError("has a number with too many digits") from None
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    return value


class _Refused(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("has the same name twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"has {name}, which is not JSON")


# Made once: json.loads with these arguments would make one each time.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
