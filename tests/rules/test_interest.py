"""The table of wanted channels against a Redis that answers in order, or refuses, or goes away."""

from __future__ import annotations

from collections import deque

from attrs import Factory, define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.interest import CHANNELS_PER_COMMAND, Command, Interest

LINGER_SECONDS = 2.0


def interest(*wanted: bytes) -> Interest:
    made = Interest(LINGER_SECONDS)
    for name in wanted:
        made.want(name)
    return made


def live(*names: bytes) -> Interest:
    """An interest whose channels were all confirmed."""
    made = interest(*names)
    made.take_commands(0.0)
    for name in names:
        assert made.confirmed(name)
    return made


def test_a_channel_is_live_once_it_is_confirmed() -> None:
    table = interest()
    assert table.want(b"a") is False
    assert table.take_commands(0.0) == [Command(b"SUBSCRIBE", (b"a",))]
    assert table.take_commands(0.0) == []
    assert table.want(b"a") is False
    assert table.confirmed(b"a") is True
    assert table.want(b"a") is True
    assert (table.live_count(), len(table), table.is_waiting) == (1, 1, False)


def test_many_are_asked_for_in_few_commands() -> None:
    names = [b"%d" % number for number in range(2 * CHANNELS_PER_COMMAND + 1)]
    commands = interest(*names).take_commands(0.0)
    assert [len(command.names) for command in commands] == [CHANNELS_PER_COMMAND, CHANNELS_PER_COMMAND, 1]
    assert [name for command in commands for name in command.names] == names


def test_a_channel_is_let_go_after_the_linger_and_not_before() -> None:
    table = live(b"a", b"b")
    table.release(b"a", 10.0)
    table.release(b"b", 11.0)
    assert table.next_release() == 10.0 + LINGER_SECONDS
    assert table.take_commands(11.999) == []
    assert table.take_commands(12.0) == [Command(b"UNSUBSCRIBE", (b"a",))]
    assert table.next_release() == 11.0 + LINGER_SECONDS
    assert table.confirmed(b"a") is False
    assert len(table) == 1


def test_who_comes_back_within_the_linger_finds_it_live() -> None:
    table = live(b"a")
    for _ in range(200):
        table.release(b"a", 10.0)
        assert table.want(b"a") is True
    assert table.next_release() is None
    assert table.take_commands(100.0) == []


def test_the_linger_begins_with_the_last_release() -> None:
    table = live(b"a")
    table.release(b"a", 10.0)
    table.want(b"a")
    table.release(b"a", 11.0)
    assert table.take_commands(12.0) == []
    assert table.take_commands(13.0) == [Command(b"UNSUBSCRIBE", (b"a",))]


def test_who_comes_back_while_it_is_let_go_waits_for_the_second_answer() -> None:
    table = live(b"a")
    table.release(b"a", 0.0)
    table.take_commands(5.0)
    assert table.want(b"a") is False
    assert table.take_commands(5.0) == [Command(b"SUBSCRIBE", (b"a",))]
    assert table.confirmed(b"a") is False
    assert table.confirmed(b"a") is True


def test_what_was_never_asked_for_is_forgotten_at_once() -> None:
    table = interest(b"a")
    table.release(b"a", 0.0)
    assert len(table) == 0
    assert table.take_commands(100.0) == []


def test_a_refused_channel_of_one_command_is_named() -> None:
    table = interest(b"a")
    table.take_commands(0.0)
    assert table.refused() == [b"a"]
    assert len(table) == 0
    assert table.want(b"a") is False


def test_the_channels_of_a_refused_command_are_asked_for_one_by_one() -> None:
    table = interest(b"a", b"b", b"c")
    table.take_commands(0.0)
    table.release(b"c", 0.0)
    assert table.refused() == []
    assert table.take_commands(0.0) == [Command(b"SUBSCRIBE", (b"a",)), Command(b"SUBSCRIBE", (b"b",))]
    assert table.confirmed(b"a") is True
    assert table.refused() == [b"b"]
    assert (table.live_count(), len(table)) == (1, 1)


def test_an_answer_to_an_old_command_makes_nothing_live() -> None:
    """SUBSCRIBE refused, with an UNSUBSCRIBE behind it, and wanted again: three commands, three answers."""
    table = interest(b"a")
    table.take_commands(0.0)
    table.release(b"a", 0.0)
    table.take_commands(5.0)
    table.want(b"a")
    table.take_commands(5.0)
    assert table.refused() == []
    assert table.confirmed(b"a") is False
    assert table.confirmed(b"a") is True


def test_refusing_everything_breaks_nothing() -> None:
    table = interest(b"a")
    table.take_commands(0.0)
    table.release(b"a", 0.0)
    table.take_commands(5.0)
    assert table.refused() == []
    assert table.refused() == []
    assert table.refused() == []
    assert len(table) == 0


def test_after_a_loss_what_is_wanted_is_asked_for_anew() -> None:
    table = live(b"a", b"b")
    table.want(b"c")
    table.take_commands(0.0)
    table.release(b"b", 0.0)
    table.lost()
    assert (table.live_count(), len(table), table.next_release()) == (0, 2, None)
    table.connected()
    assert not table.is_restored
    assert table.take_commands(0.0) == [Command(b"SUBSCRIBE", (b"a", b"c"))]
    assert table.confirmed(b"a") is True
    table.want(b"new")
    table.take_commands(0.0)
    assert not table.is_restored
    table.confirmed(b"c")
    assert table.is_restored  # the new one is under way still, and was never lost


def test_what_is_refused_or_released_need_not_be_restored() -> None:
    table = live(b"a", b"b")
    table.lost()
    table.connected()
    table.take_commands(0.0)
    assert table.refused() == []
    table.take_commands(0.0)
    assert table.refused() == [b"a"]
    assert not table.is_restored
    table.release(b"b", 0.0)
    assert table.is_restored


def test_confirmations_out_of_order_leave_nothing_behind() -> None:
    table = interest(b"a")
    table.take_commands(0.0)
    table.want(b"b")
    table.take_commands(0.0)
    assert table.confirmed(b"b") is True and table.is_waiting
    assert table.confirmed(b"b") is False
    assert table.refused() == [b"a"]
    assert table.refused() == [] and not table.is_waiting
    assert table.live_count() == len(table) == 1


def test_confirmations_that_nobody_asked_for_are_ignored() -> None:
    table = live(b"a")
    assert table.confirmed(b"never") is False
    assert table.confirmed(b"a") is False
    assert table.refused() == []
    assert table.live_count() == 1


@define(eq=False)
class ModelRedis:
    """Takes commands in order, and keeps its answers until they are read. Channels in `forbidden` are refused."""

    forbidden: set[bytes] = Factory(set)
    subscribed: set[bytes] = Factory(set)
    # Each answer: the channel, or None for an error.
    answers: deque[bytes | None] = Factory(deque)
    pending: deque[Command] = Factory(deque)

    def run_one(self) -> None:
        command = self.pending.popleft()
        if command.verb == b"SUBSCRIBE" and self.forbidden & set(command.names):
            self.answers.append(None)
            return
        for name in command.names:
            (self.subscribed.add if command.verb == b"SUBSCRIBE" else self.subscribed.discard)(name)
            self.answers.append(name)


NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])


class InterestMachine(RuleBasedStateMachine):
    """Clients come and go, Redis runs commands and answers when it likes, forbids, allows, and is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Interest(LINGER_SECONDS)
        self.redis = ModelRedis()
        self.wanted: set[bytes] = set()
        self.now = 0.0

    @rule(name=NAMES)
    def want(self, name: bytes) -> None:
        self.wanted.add(name)
        if self.table.want(name):
            assert name in self.redis.subscribed

    @rule(name=NAMES)
    def release(self, name: bytes) -> None:
        self.wanted.discard(name)
        self.table.release(name, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, LINGER_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def send(self) -> None:
        self.redis.pending += self.table.take_commands(self.now)

    @precondition(lambda self: self.redis.pending)
    @rule()
    def run(self) -> None:
        self.redis.run_one()

    @precondition(lambda self: self.redis.answers)
    @rule()
    def answer(self) -> None:
        name = self.redis.answers.popleft()
        if name is None:
            for refused in self.table.refused():
                self.wanted.discard(refused)
        elif self.table.confirmed(name):
            assert name in self.redis.subscribed

    @rule(name=NAMES)
    def forbid(self, name: bytes) -> None:
        self.redis.forbidden.add(name)

    @rule(name=NAMES)
    def allow(self, name: bytes) -> None:
        self.redis.forbidden.discard(name)

    @rule()
    def lose(self) -> None:
        self.redis = ModelRedis(forbidden=self.redis.forbidden)
        self.table.lost()
        self.table.connected()

    @invariant()
    def live_means_subscribed(self) -> None:
        """Whatever is live is subscribed, and nothing under way says otherwise: no message is missed."""
        ends = [command for command in self.redis.pending if command.verb == b"UNSUBSCRIBE"]
        for name, entry in self.table._entries.items():
            if entry.live:
                assert name in self.redis.subscribed
                assert not any(name in command.names for command in ends)

    @rule()
    def settle(self) -> None:
        """Let everything under way come to its end."""
        self.redis.forbidden.clear()
        for _ in range(20):
            self.send()
            while self.redis.pending:
                self.run()
            while self.redis.answers:
                self.answer()
        lingering = set(self.table._released)
        assert self.redis.subscribed == self.wanted | lingering
        assert set(self.table._entries) == self.redis.subscribed
        assert all(self.table.want(name) for name in self.wanted)
        assert self.table.is_restored
        assert not self.table.is_waiting

    def teardown(self) -> None:
        self.settle()
        self.now += LINGER_SECONDS
        self.settle()
        assert self.redis.subscribed == self.wanted


TestInterestMachine = InterestMachine.TestCase
TestInterestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
