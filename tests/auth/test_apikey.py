"""API keys: made, written down, and recognised."""

from __future__ import annotations

import hashlib
import re
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.apikey import ApiKeys, line_of, new_key
from broker.auth.identity import KEY, Identity
from broker.config.access import Auth
from broker.config.key import check_api_key
from broker.errors import TokenRefused
from tests.actors.signer import token

KEY_ONE, KEY_TWO, ADMIN = new_key("billing"), new_key("billing"), new_key("ops_a.b-c")
KEYS = ApiKeys(Auth(publish_keys=(line_of(KEY_ONE), line_of(KEY_TWO)), admin_keys=(line_of(ADMIN),)))


def reason(text: str, keys: ApiKeys = KEYS) -> str:
    with pytest.raises(TokenRefused) as refused:
        keys.identify(text)
    assert str(refused.value) == "the API key is not one of those in the settings"
    return refused.value.reason


def test_a_key_and_its_line() -> None:
    assert re.fullmatch(r"bk_billing_[A-Za-z0-9_-]{43}", KEY_ONE)
    assert KEY_ONE != KEY_TWO
    assert line_of(KEY_ONE) == f"billing:{hashlib.sha256(KEY_ONE.encode()).hexdigest()}"
    check_api_key(line_of(ADMIN))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "x" * 65, "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError) as refused:
        new_key(name)
    assert str(refused.value) == "a key's name has 1 to 64 letters, digits, _ - and ."


@pytest.mark.parametrize(
    "text", ["", "billing", KEY_ONE[:-1], KEY_ONE + "\n", KEY_ONE.removeprefix("bk_")], ids=count()
)
def test_what_has_no_line(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        line_of(text)
    assert str(refused.value) == "that is no API key, as `broker key create` prints it"


def test_who_has_which_key() -> None:
    assert KEYS.identify(KEY_ONE) == KEYS.identify(KEY_TWO) == Identity(KEY, name="billing")
    assert KEYS.identify(ADMIN) == Identity(KEY, name="ops_a.b-c", is_admin=True)


def test_a_key_that_is_in_both_lists_is_an_admin() -> None:
    line = line_of(KEY_ONE)
    both = ApiKeys(Auth(publish_keys=(line,), admin_keys=(line,)))
    assert both.identify(KEY_ONE) == Identity(KEY, name="billing", is_admin=True)


def test_what_is_no_key_by_its_look_is_left_to_others() -> None:
    assert [KEYS.identify(text) for text in ("", "bk", token(), "BK_x", " " + KEY_ONE)] == [None] * 5


@pytest.mark.parametrize(
    "text",
    [
        *(
            "bk_",
            KEY_ONE[:-1],
            KEY_ONE + "A",
            KEY_ONE.replace("billing", "billin"),
            KEY_ONE.replace("billing", "Billing"),
        ),
        *(new_key("billing"), new_key("other"), KEY_ONE + "\n", "bk_" + "x" * 10_000_000, "bk_é", "bk_\ud800"),
        "bk_" + line_of(KEY_ONE),
    ],
    ids=count(),
)
def test_keys_that_are_not_known(text: str) -> None:
    assert reason(text) == "unknown_api_key"


def test_no_keys_at_all() -> None:
    none = ApiKeys(Auth())
    assert (bool(none), bool(KEYS), reason(KEY_ONE, none)) == (False, True, "unknown_api_key")


def test_the_hash_is_no_key() -> None:
    digest = line_of(KEY_ONE).partition(":")[2]
    for text in (f"bk_{digest}", f"bk_billing_{digest}", f"bk_billing_{digest[:43]}"):
        assert reason(text) == "unknown_api_key"
    assert digest not in repr(KEYS)


@given(st.text(max_size=120).map(lambda text: "bk_" + text))
def test_any_text_is_refused(text: str) -> None:
    assert reason(text) == "unknown_api_key"
