"""Events as classes: build one, ask for its channel, encode it, decode it. See `docs/events.md`.

Imports attrs, msgspec and the standard library only: services import it.
"""

from __future__ import annotations

from broker.events.ai import (
    AiChunkMetadata,
    AiEvaluationStream,
    AiStreamChunk,
    Composite,
    CouncilScoreStream,
    FinalScore,
    Strength,
)
from broker.events.alert import Alert, AlertAction
from broker.events.campaign import (
    AbTestResult,
    CampaignChange,
    CampaignMetrics,
    CampaignValues,
    LiveMetricUpdate,
    VariantValues,
)
from broker.events.evaluation import Complete, EvaluationRestarted
from broker.events.event import Event
from broker.events.gap import Gap
from broker.events.job import JobProgress
from broker.events.registry import EVENT_TYPES, check, decode
from broker.events.render import VideoRenderProgress
from broker.events.session import (
    Authenticated,
    Connected,
    Disconnected,
    Error,
    Heartbeat,
    Published,
    Subscribed,
    TokenExpired,
    Unsubscribed,
)

__all__ = [
    "EVENT_TYPES",
    "AbTestResult",
    "AiChunkMetadata",
    "AiEvaluationStream",
    "AiStreamChunk",
    "Alert",
    "AlertAction",
    "Authenticated",
    "CampaignChange",
    "CampaignMetrics",
    "CampaignValues",
    "Complete",
    "Composite",
    "Connected",
    "CouncilScoreStream",
    "Disconnected",
    "Error",
    "EvaluationRestarted",
    "Event",
    "FinalScore",
    "Gap",
    "Heartbeat",
    "JobProgress",
    "LiveMetricUpdate",
    "Published",
    "Strength",
    "Subscribed",
    "TokenExpired",
    "Unsubscribed",
    "VariantValues",
    "VideoRenderProgress",
    "check",
    "decode",
]
