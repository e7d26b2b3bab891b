"""The laws of the total, and what is no plain sum."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.nodes.total import total

COUNTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 1000))
TIMES = st.integers(0, 10**6).map(lambda seconds: f"2026-01-{1 + seconds % 28:02}T00:00:00.000Z")


@st.composite
def stats(draw: Any) -> dict[str, Any]:
    """As a daemon says them, of each kind something."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
    clients = draw(st.lists(st.integers(0, 99).map(lambda number: {"id": f"sse_{number}"}), max_size=3))
    found = {
        "status": draw(st.sampled_from(["healthy", "degraded"])),
        "timestamp": draw(TIMES),
        "sse": {"totalConnections": draw(st.integers(0, 100)), "clients": clients},
        "channels": {
            "isConnected": draw(st.booleans()),
            "activeChannels": len(names),
            "totalSubscriptions": draw(st.integers(0, 100)),
            "channels": names,
        },
        "redis": {
            "refusedMessages": draw(COUNTS),
            "refusedByType": draw(st.dictionaries(st.sampled_from(["x", "y"]), COUNTS)),
            "outages": draw(st.integers(0, 5)),
            "awaySince": draw(st.none() | TIMES),
            "lastOutage": draw(st.none() | st.fixed_dictionaries({"begunAt": TIMES, "endedAt": TIMES})),
        },
        "history": {
            "isRecorder": draw(st.booleans()),
            "generation": draw(st.none() | st.integers(1, 9)),
            "refusedWhy": draw(st.none() | st.sampled_from(["NOPERM", "OOM"])),
        },
        "outboxes": {"queuedBytes": draw(st.integers(0, 99)), "peakBytes": draw(st.integers(0, 99))},
        "ofAnotherVersion": draw(st.one_of(st.booleans(), st.integers(0, 9), st.text("ab", max_size=2), st.none())),
    }
    return {name: value for name, value in found.items() if draw(st.integers(0, 9))}


@settings(max_examples=25)
@given(stats())
def test_the_total_of_one_is_that_one(one: dict[str, Any]) -> None:
    assert total([one]) == one
    assert total([one, {}]) == total([{}, one]) == one


@settings(max_examples=25)
@given(st.lists(stats(), max_size=3), st.lists(stats(), max_size=3), st.lists(stats(), max_size=3))
def test_totals_may_be_totalled_in_any_grouping(some: list[Any], more: list[Any], rest: list[Any]) -> None:
    whole = total([*some, *more, *rest])
    assert total([total(some), total(more), total(rest)]) == whole
    assert total([total([*some, *more]), *rest]) == whole
    assert total([*some, total([*more, *rest])]) == whole


@settings(max_examples=25)
@given(st.lists(stats(), min_size=1, max_size=5))
def test_a_channel_is_counted_once(several: list[Any]) -> None:
    names = {name for each in several for name in each.get("channels", {}).get("channels", ())}
    channels = total(several).get("channels", {"activeChannels": 0, "channels": []})
    assert (channels["activeChannels"], sorted(channels["channels"])) == (len(names), sorted(names))


def test_what_is_no_plain_sum() -> None:
    early, late = "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"
    one = {
        "status": "healthy",
        "timestamp": early,
        "websocket": {"totalConnections": 2, "clients": [{"id": "ws_1"}, {"id": "ws_2"}]},
        "channels": {"isConnected": True, "activeChannels": 2, "totalSubscriptions": 3, "channels": ["a:1", "b"]},
        "redis": {"messages": 5, "outages": 1, "awaySince": None, "lastOutage": {"begunAt": early, "endedAt": early}},
        "history": {"isRecorder": True, "generation": 7, "generationsBegun": 1, "recorded": 9, "refusedWhy": None},
        "auth": {"isOn": True, "revoked": {"tokens": 2, "users": 0}, "keys": {"keys": 1, "refreshedAt": late}},
        "control": {"disconnected": 1, "userEvents": 4, "bad": 1},
        "connections": {"open": 3, "max": 100},
        "outboxes": {"queuedBytes": 10, "peakBytes": 30, "maxBytes": 64},
        "tls": {"certificateExpires": late},
    }
    other = {
        "status": "degraded",
        "timestamp": late,
        "websocket": {"totalConnections": 1, "clients": [{"id": "ws_3"}]},
        "channels": {"isConnected": False, "activeChannels": 2, "totalSubscriptions": 2, "channels": ["b", "c"]},
        "redis": {"messages": 6, "outages": 1, "awaySince": late, "lastOutage": {"begunAt": early, "endedAt": late}},
        "history": {"isRecorder": False, "generation": None, "generationsBegun": 0, "recorded": 0, "refusedWhy": "no"},
        "auth": {"isOn": True, "revoked": {"tokens": 2, "users": 0}, "keys": {"keys": 1, "refreshedAt": early}},
        "control": {"disconnected": 2, "userEvents": 4, "bad": 1},
        "connections": {"open": 1, "max": 100},
        "outboxes": {"queuedBytes": 5, "peakBytes": 20, "maxBytes": 64},
        "tls": {"certificateExpires": early},
    }
    assert total([one, other], clients_listed=2) == {
        "status": "degraded",
        "timestamp": late,
        "websocket": {"totalConnections": 3, "clients": [{"id": "ws_1"}, {"id": "ws_2"}]},
        "channels": {
            "isConnected": False,
            "activeChannels": 3,
            "totalSubscriptions": 5,
            "channels": ["a:1", "b", "c"],
        },
        "redis": {"messages": 11, "outages": 1, "awaySince": late, "lastOutage": {"begunAt": early, "endedAt": late}},
        "history": {"isRecorder": True, "generation": 7, "generationsBegun": 1, "recorded": 9, "refusedWhy": "no"},
        "auth": {"isOn": True, "revoked": {"tokens": 2, "users": 0}, "keys": {"keys": 1, "refreshedAt": early}},
        "control": {"disconnected": 3, "userEvents": 4, "bad": 1},
        "connections": {"open": 4, "max": 200},
        "outboxes": {"queuedBytes": 15, "peakBytes": 30, "maxBytes": 128},
        "tls": {"certificateExpires": early},
    }
    assert total([]) == {}
