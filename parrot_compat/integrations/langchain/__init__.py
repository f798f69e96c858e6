"""LangChain: replace the class of the model, and nothing else."""

from parrot_compat.integrations.labels import session
from parrot_compat.integrations.plans.book import CallRecord, PlanRecord, Stats
from parrot_compat.integrations.plans.switches import planning

from .chat_model import ChatParrot
from .compile import CompiledRunnable, compile
from .completion import ParrotCompletion
from .copying import copy_only
from .embeddings import ParrotEmbeddings
from .planner import listen, records, stats

__all__ = [
    "CallRecord",
    "ChatParrot",
    "CompiledRunnable",
    "ParrotCompletion",
    "ParrotEmbeddings",
    "PlanRecord",
    "Stats",
    "compile",
    "copy_only",
    "listen",
    "planning",
    "records",
    "session",
    "stats",
]
