"""broker: from Redis to browsers and services, over WebSocket and Server-Sent Events.

`docs/tour.md` names the order to read the code in. What programs import is in
`broker.events`, `broker.publisher`, `broker.subscriber` and `broker.evaluation`; everything else is the daemon.
"""

__version__ = "0.7.0"
