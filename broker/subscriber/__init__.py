"""The subscriber: a broker's events in Python, over WebSocket, for as long as you like.

    async with subscribe("http://127.0.0.1:8000", ["job_progress:42"]) as events:
        async for event in events:
            print(event.channel, event.position, event.data)

Laws: in each channel events come in the order of their positions. A lost connection is made again, for ever,
and goes on behind the last event that came: on channels with history no event is lost and none comes twice.
Wherever events may be missing all the same, on any channel, `on_notice` is told so by a gap, and it is counted.
What a reconnect cannot mend is raised as a SubscriberError, in no group, by entering or by the `async for`
after its last event.

A `token` says who subscribes. What is published to that user comes too, with `is_to_user` and no channel.

To go on after a restart of the program, store `Subscription.positions` and give them back as `since`. The
position of an event is in there as soon as the event came out of the `async for`.

An older broker, which does not speak `broker.v1`, gives no positions: whatever a reconnect missed is a gap then.
"""

from __future__ import annotations

from broker.errors import SubscriberError
from broker.subscriber.credential import Token
from broker.subscriber.event import Event
from broker.subscriber.gap import Gap
from broker.subscriber.notice import Notice
from broker.subscriber.statistics import Statistics
from broker.subscriber.subscription import Subscription, subscribe

__all__ = ["Event", "Gap", "Notice", "Statistics", "SubscriberError", "Subscription", "Token", "subscribe"]
