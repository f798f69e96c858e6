"""Text: from chats and prompts to token ids, and from drawn ids back to text that can be shown.

It knows checkpoints' tokenizer files, their chat templates and ids; nothing of tensors, sequences or steps. The
process of the server uses it as the engine's does: the two agree because it is the same code.

The invariant: both ways have exactly Hugging Face's ids and texts.
"""
