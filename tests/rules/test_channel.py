"""Channel names: every form that a client may write, and a clear word for the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channel import Channel
from broker.errors import ChannelError

PART = st.text(st.sampled_from("abzAZ09_-.@=+~"), min_size=1, max_size=128)


@pytest.mark.parametrize(
    ("wire", "channel"),
    [
        ("alerts", Channel("alerts")),
        ("job_progress:job_123", Channel("job_progress", "job_123")),
        ("live_metrics:camp_1:user_789", Channel("live_metrics", "camp_1", "user_789")),
        ({"type": "job_progress", "id": "job_123"}, Channel("job_progress", "job_123")),
        ({"type": "alerts", "userId": "user_789"}, Channel("alerts", None, "user_789")),
        ({"type": "alerts", "id": None, "userId": None, "more": 1}, Channel("alerts")),
        ({"type": "a" * 128}, Channel("a" * 128)),
    ],
)
def test_both_forms(wire: object, channel: Channel) -> None:
    assert Channel.from_wire(wire) == channel


def test_a_channel_with_a_user_and_no_id() -> None:
    assert Channel("alerts", None, "user_789").name == "alerts:user_789"


@given(st.lists(PART, min_size=1, max_size=3))
def test_a_name_is_read_back(parts: list[str]) -> None:
    assert Channel.from_name(":".join(parts)).name == ":".join(parts)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ("", "channel '' has an empty part"),
        ("a:", "channel 'a:' has an empty part"),
        ("a:b:c:d", "channel 'a:b:c:d' has 4 parts; write type, type:id or type:id:userId"),
        (
            "a b",
            "channel 'a b' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
        (
            "a\r\ndata: x",
            "channel 'a\\r\\ndata: x' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
        (
            "é",
            "channel '\\xe9' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
        ("x" * 129, f"channel '{'x' * 80}...' has a part of 129 characters; at most 128"),
        (None, 'channel must be a name or an object {"type", "id", "userId"}'),
        (7, 'channel must be a name or an object {"type", "id", "userId"}'),
        ([], 'channel must be a name or an object {"type", "id", "userId"}'),
        ({}, "channel has no type"),
        ({"type": "a", "id": 7}, "channel.id must be a string, not '7'"),
        ({"type": "a", "id": ""}, "channel '' has an empty part"),
        (
            {"type": "a:b"},
            "channel 'a:b' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
    ],
)
def test_what_is_refused_and_what_is_said(wire: object, message: str) -> None:
    with pytest.raises(ChannelError) as caught:
        Channel.from_wire(wire)
    assert str(caught.value) == message
