"""LangChain: replace the class of the model, and nothing else."""

from .chat_model import ChatParrot
from .compile import CompiledRunnable, compile
from .copying import copy_only
from .planner import listen, records, stats
from .plans import CallRecord, PlanRecord, Stats
from .switches import planning

__all__ = [
    "CallRecord",
    "ChatParrot",
    "CompiledRunnable",
    "PlanRecord",
    "Stats",
    "compile",
    "copy_only",
    "listen",
    "planning",
    "records",
    "stats",
]
