"""parrot_compat serves LLM applications, not requests."""

__all__ = ["__version__"]

__version__ = "0.1.0"
