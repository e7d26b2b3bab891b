"""Evaluations: requests that stream their answer, done by workers over Redis.

from broker.evaluation import serve
trio.run(serve, {"council_score": my_handler}, "redis://127.0.0.1:6399/0")
"""

from broker.evaluation.handler import Answer, EvaluationRequest, Handler
from broker.evaluation.worker import serve

__all__ = ["Answer", "EvaluationRequest", "Handler", "serve"]
