"""What a revocation takes away, and for how long."""

from __future__ import annotations

import pytest

from broker.auth.identity import KEY, OPEN, USER, Identity
from broker.auth.revocation import SUBJECT, TOKEN, Revocation, Revocations

NOW = 1000.0


def ann(issued_at: float | None = 900.0, token_id: str | None = "t1") -> Identity:
    return Identity(USER, "ann", issued_at=issued_at, token_id=token_id)


def held(*revocations: Revocation) -> Revocations:
    found = Revocations()
    for each in revocations:
        found.add(each, NOW)
    return found


def test_a_token_by_its_id() -> None:
    revoked = held(Revocation(TOKEN, "t1", NOW, NOW + 10))
    assert revoked.holds(ann(), NOW)
    assert not revoked.holds(ann(token_id="t2"), NOW)
    assert not revoked.holds(ann(token_id=None), NOW)
    assert not revoked.holds(ann(), NOW + 10)


@pytest.mark.parametrize(("issued_at", "is_held"), [(900.0, True), (NOW, True), (NOW + 1, False), (None, True)])
def test_all_tokens_of_a_user_made_by_then(issued_at: float | None, is_held: bool) -> None:
    revoked = held(Revocation(SUBJECT, "ann", NOW, NOW + 10))
    assert revoked.holds(ann(issued_at), NOW) is is_held
    assert not revoked.holds(Identity(USER, "bob", issued_at=1.0), NOW)
    # Nobody vouches for these, and no token is behind them.
    assert not revoked.holds(Identity(OPEN, "ann"), NOW)
    assert not revoked.holds(Identity(KEY, name="ann"), NOW)


def test_the_later_of_two_holds_and_the_longer() -> None:
    revoked = held(
        Revocation(SUBJECT, "ann", NOW, NOW + 10),
        Revocation(SUBJECT, "ann", NOW - 100, NOW + 50),
        Revocation(SUBJECT, "ann", NOW + 5, NOW + 7),
    )
    assert list(revoked) == [Revocation(SUBJECT, "ann", NOW + 5, NOW + 50)]


def test_what_is_over_is_forgotten() -> None:
    revoked = held(Revocation(TOKEN, "t1", NOW, NOW + 10), Revocation(TOKEN, "old", NOW - 9, NOW - 1))
    assert revoked.statistics() == {"tokens": 1, "users": 0}
    for index in range(1000):
        assert revoked.add(Revocation(SUBJECT, f"u{index}", NOW, NOW + 99), NOW + 20)
    assert not revoked.add(Revocation(SUBJECT, "u1", NOW, NOW + 99), NOW + 20)
    assert revoked.statistics() == {"tokens": 0, "users": 1000}


@pytest.mark.parametrize("id", ["t1", "a:b:c", "ann|1", "", "\u00e9 x"])
@pytest.mark.parametrize("kind", [TOKEN, SUBJECT])
def test_it_is_read_as_it_was_written(kind: str, id: str) -> None:
    revocation = Revocation(kind, id, 12.5, 99.25)
    assert Revocation.from_member(revocation.member, 99.25) == revocation


@pytest.mark.parametrize("member", ["", "token", "token:1", "what:1:x", "token:x:y"])
def test_what_is_none_is_refused(member: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Revocation.from_member(member, 1.0)
