"""One setting: its default, what it means, and the values that it takes.

A setting is a field of a frozen class; what is known about it stands in the field's metadata, and all
that reads, checks or shows settings goes by that.
"""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import field, validators

T = TypeVar("T")


def setting(
    default: T,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    one_of: tuple[str, ...] = (),
    secret: str = "",
) -> T:
    """A field with its meaning and its bounds; the bounds are checked when the value is made.

    Args:
        secret: what of the value is shown to nobody: `url`, a URL's passwords; `hash`, what is behind the colon in
            each line of a list; `all` of it; empty, nothing.
    """
    checks: list[Any] = []
    if least is not None:
        checks.append(validators.ge(least))
    if most is not None:
        checks.append(validators.le(most))
    if one_of:
        checks.append(validators.in_(one_of))
    metadata = {"meaning": meaning, "least": least, "most": most, "one_of": one_of, "secret": secret}
    return field(
        default=default, validator=validators.and_(*checks) if checks else None, metadata=metadata, repr=not secret
    )
