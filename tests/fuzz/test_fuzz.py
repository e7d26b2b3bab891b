"""A short run of each target with a fixed seed, and that the fuzzer finds what there is to find.

A long run is `make fuzz`; what it finds is repeated by what it prints.
"""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

# About half a second each.
INPUTS = {"frames": 300, "settings": 400, "heads": 1250, "commands": 1250, "payloads": 1500}
INPUTS_OF_OTHERS = 2500


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    campaign = Campaign(TARGETS[name], seed=5)
    failure = campaign.run(INPUTS.get(name, INPUTS_OF_OTHERS))
    assert failure is None, str(failure)
    assert TARGETS[name].outcomes and TARGETS[name].outcomes <= set(campaign.outcomes)


def test_a_broken_promise_is_found_shortened_and_repeated() -> None:
    def check(data: bytes) -> str:
        assert b"\r\n" not in data or b"x" not in data
        return "fine"

    target = Target("broken", check, (b"some words that have an x",))
    failure = Campaign(target, 7).run(5000)
    assert failure is not None
    assert sorted(failure.data) == sorted(b"x\r\n")
    assert Campaign(target, 7).run(5000) == failure
    assert str(failure).startswith(f"broken: input {failure.number} of seed 7\n  AssertionError: ")
    assert str(failure).endswith(f"\n  shortened to 3 bytes:\n  {failure.data!r}")


def test_an_error_in_the_log_is_a_broken_promise() -> None:
    import structlog

    def check(data: bytes) -> str:
        structlog.get_logger("broker").warning("this may be")
        if data == b"error":
            structlog.get_logger("broker").error("this may not")
        return "fine"

    assert Campaign(Target("quiet", check, (b"warning",)), 1).run(1) is None
    failure = Campaign(Target("loud", check, (b"error",)), 1).run(1)
    assert failure is not None and "this may not" in failure.error


def test_what_is_new_is_kept_and_built_upon() -> None:
    """A lock of three letters, found one after the other; guessing all at once would take 16 million inputs."""

    def check(data: bytes) -> str:
        return str(next((at for at, (one, other) in enumerate(zip(data, b"abc", strict=False)) if one != other), 3))

    campaign = Campaign(Target("lock", check, (b"xyz---",), (b"a", b"b", b"c")), 3)
    assert campaign.run(20_000) is None
    assert set(campaign.outcomes) == {"0", "1", "2", "3"}
