"""What history costs a burst to every subscriber: unstamped, stamped, and plain on a channel with history.

Rounds of the three take turns, and their medians are compared, so that what else the machine does hits all alike.
"""

from __future__ import annotations

from statistics import median

from attrs import define, field

from tests.bench.figure import Figure
from tests.bench.place import KEPT, Place
from tests.bench.publishing import Pace, Publishing, Way, payload_of, plain, stamped
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds

MESSAGES = 500
ROUNDS = 5


@define(eq=False)
class _Course:
    """One way of publishing to one set of subscribers."""

    name: str
    way: Way
    channel: str
    subscribers: Subscribers
    rates: list[float] = field(factory=list)
    costs: list[float] = field(factory=list)


def bursts(place: Place, transport: str, clients: int) -> list[Figure]:
    """The share of the unstamped burst that the two others reach, in deliveries a second, and what they cost."""
    without = Subscribers(place.daemon.port, transport, lambda _: "bench:burst")
    kept = Subscribers(place.daemon.port, transport, lambda _: f"{KEPT}:burst{transport}")
    without.open(clients)
    kept.open(clients)
    courses = [
        _Course("unstamped", plain, "bench:burst", without),
        _Course("stamped", stamped, f"{KEPT}:burst{transport}", kept),
        _Course("plain, recorded", plain, f"{KEPT}:burst{transport}", kept),
    ]
    publishing = Publishing(place.redis.port)
    numbers = {id(without): 0, id(kept): 0}
    for _ in range(ROUNDS):
        for course in courses:
            first = numbers[id(course.subscribers)]
            numbers[id(course.subscribers)] += MESSAGES
            commands = [course.way(course.channel, payload_of(first + index)) for index in range(MESSAGES)]
            before = cpu_seconds(place.daemon_pid)
            received = course.subscribers.received
            seconds = publishing.run(commands, Pace(window=64), course.subscribers, clients)
            deliveries = course.subscribers.received - received
            course.rates.append(deliveries / seconds)
            course.costs.append((cpu_seconds(place.daemon_pid) - before) / max(1, deliveries))
    wrong = {id(each): each.wrong + abs(numbers[id(each)] * clients - each.received) for each in (without, kept)}
    publishing.close()
    without.close()
    kept.close()
    unstamped, *others = courses
    figures = [_rate(unstamped, transport, wrong[id(without)])]
    for course in others:
        figures.append(_rate(course, transport, wrong[id(kept)] if course is others[0] else 0))
        share = median(course.rates) / median(unstamped.rates)
        least = 0.5 if course.way is stamped else None
        figures.append(Figure(f"burst, {course.name} / unstamped, {transport}", share, least=least))
        cost = median(course.costs) / median(unstamped.costs)
        figures.append(Figure(f"burst, {course.name} / unstamped, CPU a delivery, {transport}", cost))
    return figures


def _rate(course: _Course, transport: str, wrong: int) -> Figure:
    return Figure(f"burst, {course.name}, {transport}", median(course.rates), "/s", wrong=wrong)
