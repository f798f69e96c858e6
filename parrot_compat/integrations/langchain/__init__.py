"""LangChain: replace the class of the model, and nothing else."""

from .chat_model import ChatParrot

__all__ = ["ChatParrot"]
