"""The kept corpus of every target, and a few inputs made of it: a target that fails is repeated by what it prints."""

from __future__ import annotations

import attrs
import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.corpus_folder import BYTES_MAX, CORPUS, FILES_MAX, kept
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

# Besides the corpus; what one input of a target costs is between 0.05 and 2 ms.
INPUTS = 200


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    target = attrs.evolve(TARGETS[name], seeds=(*TARGETS[name].seeds, *kept(name)))
    campaign = Campaign(target, seed=5)
    failure = campaign.run(len(target.seeds) + INPUTS)
    assert failure is None, str(failure)
    assert target.outcomes and target.outcomes <= set(campaign.outcomes)


def test_the_corpus_is_of_these_targets_and_bounded() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)
    for name in TARGETS:
        found = kept(name)
        # What broke a promise comes on top.
        assert len(found) <= FILES_MAX + 20 and sum(map(len, found)) <= BYTES_MAX + 20_000, name


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
    assert f"\n  shortened to 3 bytes:\n  {failure.data!r}\n  again: python -m tests.fuzz " in str(failure)


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
