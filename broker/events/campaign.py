"""Events of campaigns: their numbers, the numbers of their A/B tests, and single numbers as they move.

Source: the wire contract, "Events".
"""

from __future__ import annotations

from typing import ClassVar, Literal

from broker.events.event import Event
from broker.events.rules import Name
from broker.events.value import Value, value_class


@value_class
class CampaignValues(Value):
    """A campaign's numbers.

    Args:
        conversions: not a whole number where several ads share one.
    """

    impressions: int
    clicks: int
    ctr: float
    spend: float
    conversions: float
    roas: float


@value_class
class CampaignChange(Value):
    """How far a campaign's numbers have moved since the event before."""

    impressions: int
    clicks: int
    ctr: float
    spend: float


@value_class
class CampaignMetrics(Event):
    """A campaign's numbers, and how far they have moved."""

    type: ClassVar[str] = "campaign_metrics"
    channel_type: ClassVar[str | None] = "campaign_metrics"
    channel_id: ClassVar[str | None] = "campaign_id"

    campaign_id: Name
    metrics: CampaignValues
    change: CampaignChange


@value_class
class VariantValues(Value):
    """The numbers of one variant.

    Args:
        conversions: not a whole number where several ads share one.
    """

    impressions: int
    clicks: int
    ctr: float
    conversions: float
    confidence: float


@value_class
class AbTestResult(Event):
    """Where one variant of an A/B test stands."""

    type: ClassVar[str] = "ab_test_result"
    channel_type: ClassVar[str | None] = "ab_test_results"
    channel_id: ClassVar[str | None] = "test_id"

    test_id: Name
    variant_id: Name
    metrics: VariantValues
    is_winner: bool
    statistical_significance: float


@value_class
class LiveMetricUpdate(Event):
    """One number that has moved."""

    type: ClassVar[str] = "live_metric_update"
    channel_type: ClassVar[str | None] = "live_metrics"
    channel_id: ClassVar[str | None] = "entity_id"

    entity_id: Name
    entity_type: Literal["campaign", "ad", "variant", "creative"]
    metric: Name
    value: float
    delta: float
    delta_percent: float
