"""LlamaIndex: replace the class of the model, and nothing else."""

from parrot_compat.integrations.errors import ParrotAPIError
from parrot_compat.integrations.labels import session
from parrot_compat.integrations.plans.book import CallRecord, PlanRecord, Stats
from parrot_compat.integrations.plans.switches import planning

from .embedding import ParrotEmbedding
from .llm import ParrotLLM
from .planner import listen, records, stats

__all__ = [
    "CallRecord",
    "ParrotAPIError",
    "ParrotEmbedding",
    "ParrotLLM",
    "PlanRecord",
    "Stats",
    "listen",
    "planning",
    "records",
    "session",
    "stats",
]
