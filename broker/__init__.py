"""broker: from Redis to browsers and services, over WebSocket and Server-Sent Events.

`docs/tour.md` names the order to read the code in. What programs import is in
`broker.subscriber`; everything else is the daemon.
"""

__version__ = "0.1.0"
