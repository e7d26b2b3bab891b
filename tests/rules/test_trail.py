"""A channel with history, followed through everything that can happen to it (`trail_story.py`).

The law that every client's record is held against: offsets follow each other, and where one is missing there is a gap
in between; nothing comes twice; and in the end everybody is at the newest event.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rules.trail_story import NAME, Story

OFTEN = [Story.publish, Story.hear, Story.ask, Story.tell] * 5 + [Story.come, Story.come_back, Story.find_the_link] * 2
ONCE = [Story.leave, Story.slow_down, Story.read_all, Story.lose_the_link, Story.look_around, Story.trim]
ONCE += [Story.remember, Story.restart_empty, Story.restart_older, Story.lose_a_message, Story.delete]


def tell_story(seed: int, replay: int, steps: Iterable[Callable[[Story], None]]) -> None:
    story = Story(Random(seed), replay)
    story.find_the_link()
    for step in steps:
        step(story)
        story.check()
    story.end()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.sampled_from([0, 1, 2, 10]), st.lists(st.sampled_from(OFTEN + ONCE), min_size=20))
def test_nothing_is_lost_silently(seed: int, replay: int, steps: list[Callable[[Story], None]]) -> None:
    tell_story(seed, replay, steps)


@pytest.mark.parametrize("seed", range(int(os.environ.get("BROKER_STORIES", "100"))))
def test_nothing_is_lost_silently_in_long_stories(seed: int) -> None:
    random = Random(seed)
    # Not everything in every story: what happens rarely has then time to matter.
    rare = random.sample(ONCE, random.randint(1, len(ONCE)))
    tell_story(seed, random.choice([0, 1, 2, 10]), random.choices(OFTEN + rare, k=300))


def test_who_is_told_of_an_older_state_gets_nothing_of_the_newer_one_behind_it() -> None:
    """The link is away, and what it delivered before is kept for who reads."""
    story = Story(Random(0), 0)
    story.find_the_link()
    for _ in range(2):
        story.come()
    story.settle()
    stayed, came_back = story.clients

    def publish_to(offset: int) -> None:
        while story.redis.top < offset:
            story.redis.publish()

    publish_to(6)
    story.settle()
    story.remember()
    stayed.is_slow = True
    publish_to(8)
    while story.redis.wire:
        story.hear()
    story.hub.leave(came_back, NAME)
    story.clients.remove(came_back)
    story.gone.append(came_back)
    publish_to(16)
    story.come_back()
    story.ask()
    story.tell()
    last = story.clients[1].last()
    assert last is not None and last.offset == 11
    story.restart_older()
    publish_to(7)
    story.ask()
    story.tell()
    story.check()
    assert story.clients[1].record[-1].startswith("gap rolled_back")
    story.end()


def test_who_comes_after_a_change_of_the_recorder_is_not_told_of_it_and_who_was_there_is() -> None:
    story = Story(Random(0), 0)
    story.find_the_link()
    story.redis.generation = 1
    story.come()
    story.settle()
    story.redis.generation = 2
    story.historian.kept.clear()
    story.come()
    story.settle()
    here = story.redis.epoch.decode()
    for trail in story.hub.trails():
        trail.recorder_changed(2, 0.0)  # as the daemon finds out, a moment later
    assert [client.record[1:] for client in story.clients] == [[f"gap recorder_changed {here}:0:0 {here}:0:0"], []]


def test_who_waits_for_the_trail_is_told_of_another_recorder_before_what_that_recorded() -> None:
    """When the link is back, the trail reads for itself and for who has read meanwhile."""
    story = Story(Random(0), 0)
    story.find_the_link()
    story.redis.generation = 1
    story.come()
    story.come()
    story.redis.record()
    story.settle()
    story.clients[1].is_slow = True
    story.redis.publish()
    story.hear()
    story.lose_the_link()
    story.read_all()
    story.settle()
    story.redis.generation = 2
    story.redis.record()
    clients = list(story.clients)
    story.end()
    for client in clients:
        stamped, gap, recorded = client.record[1:]
        assert stamped.endswith(" 2")
        assert gap.startswith("gap recorder_changed")
        assert recorded.endswith(" 3")
