"""Forked children, worker processes, and the end of the interpreter."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from broker.publisher import Publisher
from broker.publisher.job import Job
from tests.actors.redis_server import RedisServer
from tests.publisher.surfaces import RedisEar

# Python 3.12 and later warn of every fork beside other threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

_ROUNDS = 50


def _publish(publisher: Publisher, who: str) -> bool:
    answers = [publisher.publish("a", f'"{who}{n}"', confirm=True) for n in range(_ROUNDS)]
    statistics = publisher.statistics()
    # The parent's count is not the child's; and no answer is another process's.
    return answers == [1] * _ROUNDS and (statistics.published, dict(statistics.lost)) == (_ROUNDS, {})


def _in_fork(publisher: Publisher, who: str, job: Job | None = None) -> int:
    """The id of a child that publishes, and exits with 0 if all is well.

    Args:
        job: one of the parent's, which the child goes on with first.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if job is not None:
                job.progress(0.5, "in the child")
                assert publisher.statistics().lost == {}
                # From zero again, for what follows.
                publisher.renew()
            status = 0 if _publish(publisher, who) else 2
        finally:
            os._exit(status)
    return child


def test_a_forked_child_has_connections_of_its_own(redis_server: RedisServer) -> None:
    ear = RedisEar(redis_server.client())
    with Publisher(redis_server.url, timeout_seconds=5) as publisher:
        assert publisher.publish("a", '"first"', confirm=True) == 1
        children = [_in_fork(publisher, who) for who in "xy"]
        answers = [publisher.publish("a", f'"p{n}"', confirm=True) for n in range(_ROUNDS)]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
        assert answers == [1] * _ROUNDS
        # The children's end has not closed the parent's connection.
        assert publisher.publish("a", '"last"', confirm=True) == 1
        assert publisher.statistics().published == _ROUNDS + 2
    heard = [payload for _, payload in ear.hear(3 * _ROUNDS + 2)]
    for who in "xyp":
        assert [each for each in heard if each.startswith(f'"{who}'.encode())] == [
            f'"{who}{n}"'.encode() for n in range(_ROUNDS)
        ]
    ear.close()


def test_a_fork_in_the_middle_of_other_threads_work_leaves_no_lock_held(redis_server: RedisServer) -> None:
    """While another thread is inside publish, with the tally, the pool and a job's turn in its hands."""
    ear = RedisEar(redis_server.client())
    stop = threading.Event()
    with Publisher(redis_server.url, timeout_seconds=2, connections_max=1) as publisher:
        job = publisher.job("busy", per_second=0)

        def keep_publishing() -> None:
            with job:
                while not stop.is_set():
                    job.progress(0.5)

        thread = threading.Thread(target=keep_publishing)
        thread.start()
        try:
            for _ in range(5):
                child = _in_fork(publisher, "c", job)
                deadline = time.monotonic() + 10
                while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
                    assert time.monotonic() < deadline, "the child hangs"
                    time.sleep(0.005)
                assert os.waitstatus_to_exitcode(ended[1]) == 0
        finally:
            stop.set()
            thread.join(10)
        assert publisher.statistics().lost == {}
    ear.close()


def _worker(publisher: Publisher, results: Any) -> None:
    # A held value in the child: its timer thread is its own.
    with publisher.job("child", per_second=20) as job:
        job.progress(0.1)
        job.progress(0.2)
        time.sleep(0.2)
        results.put(dict(publisher.statistics().lost) or publisher.statistics().published)


def test_multiprocessing_by_fork(redis_server: RedisServer) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with Publisher(redis_server.url, timeout_seconds=5) as publisher:
        with publisher.job("parent", per_second=20) as job:
            job.progress(0.1)
            job.progress(0.2)
            process = context.Process(target=_worker, args=(publisher, results))
            process.start()
            assert results.get(timeout=10) == 3
            process.join(10)
            assert process.exitcode == 0
    results.close()
    results.join_thread()


_AT_EXIT = """
import asyncio, sys, trio
from broker.publisher import AsyncPublisher, Publisher, TrioPublisher
url = sys.argv[1]
sync = Publisher(url)
assert sync.publish("a", "1")
job = sync.job("42")
job.__enter__()
job.progress(0.1)
job.progress(0.2)
unused = AsyncPublisher(url), TrioPublisher(url)
asynchronous = AsyncPublisher(url)
async def main():
    assert await asynchronous.publish("a", "1")
asyncio.run(main())
of_trio = TrioPublisher(url)
trio.run(of_trio.publish, "a", "1")
"""


def test_the_interpreter_ends_without_a_word(redis_server: RedisServer) -> None:
    """Nothing is closed, a value is held and a timer runs; warnings are errors and would be printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _AT_EXIT, redis_server.url],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_IMPORTS = """
import sys, time
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
begin = time.process_time()
{code}
seconds = time.process_time() - begin
print(seconds, *sorted({{"trio", "quart", "redis", "asyncio", "cattrs", "hypercorn"}} & set(sys.modules)))
"""


def _imported(code: str, *absent: str) -> tuple[float, list[str]]:
    """The CPU seconds that `code` took, and which of the heavy modules it loaded."""
    script = _IMPORTS.format(code=code, absent=absent)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    return float(seconds), modules


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import broker.publisher", []),
        ("from broker.publisher import Publisher; Publisher()", []),
        ("from broker.publisher import RecordingPublisher; RecordingPublisher().publish('a', '1')", []),
        ("from broker.publisher import AsyncPublisher; AsyncPublisher()", ["asyncio"]),
    ],
)
def test_importing_loads_little(code: str, loaded: list[str]) -> None:
    """What takes long is the import of redis-py, which waits for the first event that is published."""
    modules = _imported(code, "trio", "quart")[1]
    assert modules == loaded


def test_importing_is_quick() -> None:
    """It takes a twentieth of this; what it loads is bounded above."""
    assert min(_imported("import broker.publisher", "trio", "quart")[0] for _ in range(3)) < 0.15


def test_without_trio_and_quart_everything_but_the_trio_publisher_works(redis_server: RedisServer) -> None:
    code = f"""
import asyncio, pytest
from broker.publisher import AsyncPublisher, Publisher
import broker.publisher.pytest_plugin
with Publisher({redis_server.url!r}) as publisher, publisher.job("42") as job:
    job.progress(0.5)
    assert publisher.publish("a", "1", confirm=True) == 0
async def main():
    async with AsyncPublisher({redis_server.url!r}) as publisher, publisher.job("42") as job:
        await job.progress(0.5)
        assert await publisher.publish("a", "1", confirm=True) == 0
asyncio.run(main())
try:
    from broker.publisher import TrioPublisher
except ModuleNotFoundError as error:
    assert str(error) == "trio"
else:
    raise AssertionError
"""
    _, modules = _imported(code, "trio", "quart", "quart_trio", "hypercorn", "cattrs", "structlog", "click")
    assert modules == ["asyncio", "redis"]


def test_the_package_lists_its_names() -> None:
    import broker.publisher

    assert set(broker.publisher.__all__) <= set(dir(broker.publisher))
    for name in broker.publisher.__all__:
        assert getattr(broker.publisher, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        _ = broker.publisher.Nobody  # type: ignore[attr-defined]
