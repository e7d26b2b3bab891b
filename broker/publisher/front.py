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
from broker.publisher.statistics import INVALID, PAUSED, REFUSED, UNANSWERED, Tally


@define(eq=False)
class Front:
    """The rules of one publisher, around its tally. Synchronous; never waits."""

    destination: Destination
    tally: Tally

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
            refusal: ChannelError | EventError = error
        except Exception as error:  # whatever an object of the caller's raises while it is looked at
            refusal = EventError(f"what was given cannot be published: {type(error).__name__}: {error}")
        self.tally.lost(INVALID, count, str(refusal), channel=channel, told=confirm)
        if confirm:
            raise refusal
        return None

    def admits(self, batch: Sequence[Publication], *, urgent: bool) -> bool:
        """Whether to try Redis now: also in a pause, where it is `urgent`."""
        if self.tally.admits() or urgent:
            return True
        self.tally.lost(PAUSED, len(batch), channel=batch[0].channel)
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
            self.tally.published(len(receivers))
        elif outcome.answers:
            self.tally.answered()
        where = f"Redis at {self.destination.shown}"
        if outcome.unkept:
            self.tally.unkept(outcome.unkept, f"{where} does not keep it: {outcome.why_unkept}")
        if outcome.why_plain:
            self.tally.plain(f"{where} does not let this user run the script: {outcome.why_plain}")
        problems: list[tuple[str, str]] = []
        for publication, answer in zip(batch, outcome.answers, strict=False):
            if isinstance(answer, Refusal):
                why = f"{where} refused: {answer.text}"
                self.tally.lost(REFUSED, 1, why, channel=publication.channel, told=confirm)
                problems.append((publication.channel, why))
        rest = batch[len(outcome.answers) :]
        if outcome.breakdown is not None and rest:
            reason, why = outcome.breakdown.reason, outcome.breakdown.why
            self.tally.lost(reason, len(rest), why, channel=rest[0].channel, told=confirm)
            problems.append((rest[0].channel, why))
        if not problems:
            return receivers
        if confirm:
            may_have_arrived = outcome.breakdown is not None and outcome.breakdown.reason == UNANSWERED
            raise PublishError(_told(problems[0], len(batch), len(receivers), may_have_arrived))
        return None


def _told(problem: tuple[str, str], asked: int, taken: int, may_have_arrived: bool) -> str:
    channel, why = problem
    if may_have_arrived and asked == 1:
        return f"{channel}: {why} (it may have arrived)"
    if may_have_arrived:
        return f"{channel}: {why} ({taken} of {asked} events were confirmed; the others may have arrived)"
    of = "" if asked == 1 else f" ({taken} of {asked} events were taken)"
    return f"{channel}: {why}{of}"
