"""A dump has a bounded number of lines, and lets the loop go on while it is written."""

from __future__ import annotations

from typing import Any

import trio
from attrs import Factory, define
from structlog.testing import capture_logs

from broker.client import ClientStatistics
from broker.dump import CLIENTS_MAX, TASKS_MAX, Dump


@define(eq=False)
class Box:
    queued_bytes: int
    backlog_bytes: int = 7


@define(eq=False)
class Guest:
    id: str
    outbox: Box
    ending: None = None

    def statistics(self) -> ClientStatistics:
        names = tuple(f"c:{index}" for index in range(9))
        return ClientStatistics(self.id, "ann", 0.0, 3, None, self.outbox.queued_bytes, names, True)


@define(eq=False)
class House:
    guests: list[Guest] = Factory(list)

    def everyone(self) -> list[Guest]:
        return self.guests

    def __len__(self) -> int:
        return len(self.guests)


async def wait_for(event: trio.Event) -> None:
    await event.wait()


async def test_many_tasks_and_clients(nursery: trio.Nursery) -> None:
    never = trio.Event()
    for _ in range(5000):
        nursery.start_soon(wait_for, never)
    for index in range(TASKS_MAX + 50):  # each a function of its own
        space: dict[str, Any] = {}
        exec(f"async def wait_{index}(event):\n    await event.wait()", space)
        nursery.start_soon(space[f"wait_{index}"], never)
    house = House([Guest(f"ws_{index}", Box(index % 777)) for index in range(2000)])
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    dump = Dump(house, {"hub": lambda: {"channels": 3}})  # type: ignore[arg-type]
    told: list[str] = []

    async def write() -> None:
        told.append(await dump.write())

    async with trio.open_nursery() as others:
        others.start_soon(turn)
        await trio.lowlevel.checkpoint()
        with capture_logs() as lines:
            async with trio.open_nursery() as writers:
                writers.start_soon(write)
                writers.start_soon(write)  # one at a time
        others.cancel_scope.cancel()
    assert sorted(told)[1] == "a dump is being written already"
    assert sorted(told)[0].endswith(f"tasks in {TASKS_MAX} lines, and {CLIENTS_MAX} of 2000 clients")
    assert turns > 30
    of_tasks = [line for line in lines if line["event"] == "dump: tasks"]
    assert len(of_tasks) == TASKS_MAX + 1
    assert of_tasks[0]["count"] == 5000
    assert of_tasks[0]["what"].startswith("wait_for > ")
    assert "left_out" in of_tasks[-1]
    clients = [line for line in lines if line["event"] == "dump: client"]
    queued = [line["queued_bytes"] for line in clients]
    assert queued == sorted((index % 777 for index in range(2000)), reverse=True)[:CLIENTS_MAX]
    assert clients[0]["channels"] == ["c:0", "c:1", "c:2", "c:3", "c:4", "..."]
    assert [line["channels"] for line in lines if line["event"] == "dump: state"] == [3]
    nursery.cancel_scope.cancel()
