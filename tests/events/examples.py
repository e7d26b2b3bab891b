"""One event of each type: its class, its arguments, and what it says on the wire, written down by hand."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from broker.events import (
    AbTestResult,
    AiChunkMetadata,
    AiEvaluationStream,
    AiStreamChunk,
    Alert,
    AlertAction,
    Authenticated,
    CampaignChange,
    CampaignMetrics,
    CampaignValues,
    Complete,
    Composite,
    Connected,
    CouncilScoreStream,
    Disconnected,
    Error,
    EvaluationRestarted,
    Event,
    FinalScore,
    Gap,
    Heartbeat,
    JobProgress,
    LiveMetricUpdate,
    Published,
    Strength,
    Subscribed,
    TokenExpired,
    Unsubscribed,
    VariantValues,
    VideoRenderProgress,
)

STAMP = "2026-01-31T12:00:00.000Z"


@frozen
class Example:
    """An event in both forms; `wire` is without `type` and `timestamp`.

    Args:
        required: fields of the wire that may not be missing, besides those two.
        channel: None where the event has none.
    """

    event_type: type[Event]
    arguments: dict[str, Any]
    wire: dict[str, Any]
    required: tuple[str, ...]
    channel: str | None

    def build(self) -> Event:
        return self.event_type(**self.arguments, timestamp=STAMP)

    @property
    def whole_wire(self) -> dict[str, Any]:
        return {"type": self.event_type.type, "timestamp": STAMP, **self.wire}


EXAMPLES = [
    Example(
        JobProgress,
        {
            "job_id": "42",
            "status": "processing",
            "stage": "rendering",
            "progress": 0.4,
            "message": "Half way",
            "metadata": {"attempt": 2, "tags": ["a", None]},
            "id": "job_42_1",
        },
        {
            "jobId": "42",
            "status": "processing",
            "stage": "rendering",
            "progress": 0.4,
            "message": "Half way",
            "metadata": {"attempt": 2, "tags": ["a", None]},
            "id": "job_42_1",
        },
        ("jobId", "status", "stage", "progress", "message"),
        "job_progress:42",
    ),
    Example(
        VideoRenderProgress,
        {
            "job_id": "v1",
            "current_frame": 12,
            "total_frames": 720,
            "progress": 0.02,
            "fps": 24,
            "estimated_time_remaining": 29.5,
            "stage": "rendering",
        },
        {
            "jobId": "v1",
            "currentFrame": 12,
            "totalFrames": 720,
            "progress": 0.02,
            "fps": 24.0,
            "estimatedTimeRemaining": 29.5,
            "stage": "rendering",
        },
        ("jobId", "currentFrame", "totalFrames", "progress", "fps", "estimatedTimeRemaining", "stage"),
        "video_render:v1",
    ),
    Example(
        AiStreamChunk,
        {
            "model": "some model",
            "chunk": "é",
            "is_complete": False,
            "metadata": AiChunkMetadata(tokens_used=7, thinking_time=1.5),
            "id": "ai_1",
        },
        {
            "model": "some model",
            "chunk": "é",
            "isComplete": False,
            "metadata": {"tokensUsed": 7, "thinkingTime": 1.5},
            "id": "ai_1",
        },
        ("model", "chunk", "isComplete"),
        "ai_stream",
    ),
    Example(
        CouncilScoreStream,
        {
            "stage": "complete",
            "is_complete": True,
            "score": 71,
            "final_score": FinalScore(
                composite=70.5,
                psychology=Composite(composite=60),
                hook_strength=Strength(strength=80),
                novelty=Composite(composite=72.5),
            ),
        },
        {
            "stage": "complete",
            "isComplete": True,
            "score": 71,
            "finalScore": {
                "composite": 70.5,
                "psychology": {"composite": 60},
                "hookStrength": {"strength": 80},
                "novelty": {"composite": 72.5},
            },
        },
        ("stage", "isComplete"),
        "council_score",
    ),
    Example(
        AiEvaluationStream,
        {"evaluation_type": "creative", "model": "claude", "chunk": "", "is_complete": True, "error": "it broke off"},
        {"evaluationType": "creative", "model": "claude", "chunk": "", "isComplete": True, "error": "it broke off"},
        ("evaluationType", "model", "chunk", "isComplete"),
        "creative_evaluation",
    ),
    Example(
        CampaignMetrics,
        {
            "campaign_id": "c1",
            "metrics": CampaignValues(impressions=1000, clicks=20, ctr=0.02, spend=9.5, conversions=3, roas=2.1),
            "change": CampaignChange(impressions=-10, clicks=1, ctr=-0.001, spend=0.5),
        },
        {
            "campaignId": "c1",
            "metrics": {
                "impressions": 1000,
                "clicks": 20,
                "ctr": 0.02,
                "spend": 9.5,
                "conversions": 3,
                "roas": 2.1,
            },
            "change": {"impressions": -10, "clicks": 1, "ctr": -0.001, "spend": 0.5},
        },
        ("campaignId", "metrics", "change"),
        "campaign_metrics:c1",
    ),
    Example(
        AbTestResult,
        {
            "test_id": "t1",
            "variant_id": "B",
            "metrics": VariantValues(impressions=10, clicks=2, ctr=0.2, conversions=1, confidence=0.9),
            "is_winner": False,
            "statistical_significance": 0.9,
        },
        {
            "testId": "t1",
            "variantId": "B",
            "metrics": {"impressions": 10, "clicks": 2, "ctr": 0.2, "conversions": 1, "confidence": 0.9},
            "isWinner": False,
            "statisticalSignificance": 0.9,
        },
        ("testId", "variantId", "metrics", "isWinner", "statisticalSignificance"),
        "ab_test_results:t1",
    ),
    Example(
        LiveMetricUpdate,
        {
            "entity_id": "e1",
            "entity_type": "ad",
            "metric": "ctr",
            "value": 0.021,
            "delta": -0.001,
            "delta_percent": -4.5,
        },
        {
            "entityId": "e1",
            "entityType": "ad",
            "metric": "ctr",
            "value": 0.021,
            "delta": -0.001,
            "deltaPercent": -4.5,
        },
        ("entityId", "entityType", "metric", "value", "delta", "deltaPercent"),
        "live_metrics:e1",
    ),
    Example(
        Alert,
        {
            "alert_id": "a1",
            "severity": "warning",
            "category": "budget",
            "title": "Budget",
            "message": "Nearly spent",
            "entity_id": "c1",
            "entity_type": "campaign",
            "action_required": True,
            "actions": [AlertAction(label="Raise", action="raise", url="/raise"), AlertAction(label="No", action="no")],
            "id": "alert_1",
        },
        {
            "alertId": "a1",
            "severity": "warning",
            "category": "budget",
            "title": "Budget",
            "message": "Nearly spent",
            "entityId": "c1",
            "entityType": "campaign",
            "actionRequired": True,
            "actions": [{"label": "Raise", "action": "raise", "url": "/raise"}, {"label": "No", "action": "no"}],
            "id": "alert_1",
        },
        ("alertId", "severity", "category", "title", "message", "actionRequired"),
        "alerts",
    ),
    Example(
        EvaluationRestarted,
        {"evaluation_id": "e1", "attempt": 2, "message": "again"},
        {"evaluationId": "e1", "attempt": 2, "message": "again"},
        ("evaluationId", "attempt", "message"),
        None,
    ),
    Example(
        Complete,
        {"data": {"scores": [], "compositeScore": 3.5}},
        {"data": {"scores": [], "compositeScore": 3.5}},
        ("data",),
        None,
    ),
    Example(
        Connected,
        {"message": "hello", "client_id": "ws_1", "user_id": "u1", "expires_at": STAMP},
        {"message": "hello", "clientId": "ws_1", "userId": "u1", "expiresAt": STAMP},
        ("message",),
        None,
    ),
    Example(
        Authenticated,
        {"user_id": "u1", "expires_at": STAMP},
        {"userId": "u1", "expiresAt": STAMP},
        (),
        None,
    ),
    Example(TokenExpired, {"message": "over"}, {"message": "over"}, ("message",), None),
    Example(
        Disconnected,
        {"message": "bye", "reconnect_in_ms": 830},
        {"message": "bye", "reconnectInMs": 830},
        ("message",),
        None,
    ),
    Example(
        Error,
        {"message": "no", "code": "bad_json"},
        {"message": "no", "code": "bad_json"},
        ("message",),
        None,
    ),
    Example(Heartbeat, {"server_time": STAMP}, {"serverTime": STAMP}, ("serverTime",), None),
    Example(
        Subscribed,
        {"channel": "alerts", "user_id": "u1", "name": "alerts:u1", "success": True},
        {"channel": "alerts", "userId": "u1", "name": "alerts:u1", "success": True},
        ("channel", "success"),
        None,
    ),
    Example(
        Unsubscribed,
        {"channel": "alerts", "id": "a", "success": False},
        {"channel": "alerts", "id": "a", "success": False},
        ("channel", "success"),
        None,
    ),
    Example(
        Published,
        {"channel": "alerts", "user_id": "u1", "name": "alerts:u1", "success": True},
        {"channel": "alerts", "userId": "u1", "name": "alerts:u1", "success": True},
        ("channel", "success"),
        None,
    ),
    Example(
        Gap,
        {"channel": "alerts:u1", "reason": "overflow", "from_": "7:1:70", "to": "7:4:73", "count": 3},
        {"channel": "alerts:u1", "reason": "overflow", "from": "7:1:70", "to": "7:4:73", "count": 3},
        ("channel", "reason"),
        None,
    ),
]
BY_TYPE = {example.event_type.type: example for example in EXAMPLES}
