"""LlamaIndex: replace the class of the model, and nothing else."""

from parrot_compat.integrations.labels import session
from parrot_compat.integrations.plans.book import CallRecord, PlanRecord, Stats
from parrot_compat.integrations.plans.switches import planning

from .embedding import ParrotEmbedding
from .errors import ParrotLLMError
from .llm import ParrotLLM
from .planner import listen, records, stats

__all__ = [
    "CallRecord",
    "ParrotEmbedding",
    "ParrotLLM",
    "ParrotLLMError",
    "PlanRecord",
    "Stats",
    "listen",
    "planning",
    "records",
    "session",
    "stats",
]
