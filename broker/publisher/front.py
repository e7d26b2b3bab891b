"""What every publisher does before and after the round trip: check, count, and answer the caller.

Law: without `confirm` nothing is raised, whatever was given; with it, whatever Redis did not take is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define

from broker.errors import ChannelError, EventError, PublishError
from broker.publisher.destination import Destination
from broker.publisher.exchange import Outcome, Refusal
from broker.publisher.publication import Publication
from broker.publisher.statistics import INVALID, PAUSED, REFUSED, Ledger


@define(eq=False)
class Front:
    """The rules of one publisher, around its ledger. Synchronous; never waits."""

    destination: Destination
    ledger: Ledger

    def checked(
        self, check: Callable[[], list[Publication]], count: int, *, confirm: bool, channel: str = ""
    ) -> list[Publication] | None:
        """What `check` makes; None after counting `count` events as lost, if it refuses.

        Raises:
            ChannelError, EventError: it refuses, and `confirm` is set.
        """
        try:
            return check()
        except (ChannelError, EventError) as error:
            self.ledger.lost(INVALID, count, str(error), channel=channel, told=confirm)
            if confirm:
                raise
            return None

    def admits(self, batch: Sequence[Publication], *, urgent: bool) -> bool:
        """Whether to try Redis now: also in a pause, where it is `urgent`."""
        if self.ledger.admits() or urgent:
            return True
        self.ledger.lost(PAUSED, len(batch), channel=batch[0].channel)
        return False

    def settle(self, batch: Sequence[Publication], outcome: Outcome, *, confirm: bool) -> list[int] | None:
        """Count what came of `batch`.

        Returns:
            how many received each event; None where not all of it was taken.

        Raises:
            PublishError: not all of it was taken, and `confirm` is set.
        """
        receivers = [answer for answer in outcome.answers if isinstance(answer, int)]
        if receivers:
            self.ledger.published(len(receivers))
        elif outcome.answers:
            self.ledger.answered()
        problems: list[tuple[str, str]] = []
        for publication, answer in zip(batch, outcome.answers, strict=False):
            if isinstance(answer, Refusal):
                why = f"Redis at {self.destination.shown} refused: {answer.text}"
                self.ledger.lost(REFUSED, 1, why, channel=publication.channel, told=confirm)
                problems.append((publication.channel, why))
        rest = batch[len(outcome.answers) :]
        if outcome.breakdown is not None and rest:
            reason, why = outcome.breakdown.reason, outcome.breakdown.why
            self.ledger.lost(reason, len(rest), why, channel=rest[0].channel, told=confirm)
            problems.append((rest[0].channel, why))
        if not problems:
            return receivers
        if confirm:
            raise PublishError(_told(problems[0], len(batch), len(receivers)))
        return None


def _told(problem: tuple[str, str], asked: int, taken: int) -> str:
    channel, why = problem
    of = "" if asked == 1 else f" ({taken} of {asked} events were taken)"
    return f"{channel}: {why}{of}"
