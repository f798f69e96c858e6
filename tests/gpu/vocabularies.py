"""Small tokenizers of every family, trained on the spot, with chat templates like the real ones. No weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog. system user assistant tool Hello, world! im_start im_end endoftext",
    "INST start_header_id end_header_id eot_id begin_of_text It's 2026 and the naïve façade cost 10€. 语言 模型 🦜",
    'def main(): return {"name": "add", "arguments": {"a": 1}}\n\n    think end of text tool_call <b>bold</b>',
]

QWEN25 = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}{% endif %}{{- '\\n\\n<tools>' }}
{% for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

QWEN3 = """\
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n<think>\\n' + reasoning + '\\n</think>\\n\\n' + content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

LLAMA3 = """\
{{- bos_token }}{% for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('Unknown role ' + message.role) }}
    {%- endif %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}
{%- else %}{% set rest = messages %}{% set system = false %}{% endif %}
{%- for message in rest %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- if loop.index0 == 0 and system %}
{%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{%- else %}{% set content = message['content'] %}{% endif %}
{%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""

PHI3 = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

MISTRAL_ARGS = """\
{{- bos_token }}{%- if tools %}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.role == 'system' %}{{- '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
    {%- elif message.role == 'tool' %}{{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
    {%- else %}{{- message.content or '' }}
        {%- for call in message.tool_calls or [] %}
            {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}
        {%- endfor %}{{- eos_token }}
    {%- endif %}
{%- endfor %}"""

STYLES = ("qwen25", "qwen3", "llama3", "llama2", "llama2_old", "mistral", "phi3", "unigram")


def save_vocabulary(style: str, folder: Path) -> Path:
    tokenizer, settings = _MAKERS[style]()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _byte_level(special: list[str], plain: list[str], **model: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    words = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(content, normalized=False) for content in special])
    tokenizer.add_tokens([AddedToken(content, normalized=False) for content in plain])
    return tokenizer


def _qwen25() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<tool_call>", "</tool_call>"])
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer, {
        "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": QWEN25,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }


def _qwen3() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>"], ["<think>", "</think>", "«é»"])
    # Not Qwen's own flags: a token that takes the blanks around it.
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", lstrip=True, rstrip=True)])
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": QWEN3,
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    }


def _llama3() -> tuple[Tokenizer, dict[str, Any]]:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(special, [], ignore_merges=True)
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": LLAMA3,
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
    }


def _sentencepiece(control: list[str]) -> Tokenizer:
    """Like a converted sentencepiece model: `<s>` and the 256 bytes are words of the model itself."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    words = [*control, *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        [text.encode("ascii", "ignore").decode() for text in TEXT],
        trainers.BpeTrainer(vocab_size=600, special_tokens=words, show_progress=False),
    )
    state = json.loads(tokenizer.to_str())
    learnt = json.loads(learner.to_str())
    state["model"] |= {"vocab": learnt["model"]["vocab"], "merges": learnt["model"]["merges"]}
    state["added_tokens"] = [token for token in learnt["added_tokens"] if token["content"] in control]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return tokenizer


def _sentencepiece_settings(template: str) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }


def _llama2() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = _sentencepiece(["<unk>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = None  # the older form: the normalizer puts the blank, after every control token
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer, _sentencepiece_settings(LLAMA2)


def _llama2_old() -> tuple[Tokenizer, dict[str, Any]]:
    """The first Llama 2 files: control tokens are looked for in the normalised text."""
    tokenizer, settings = _llama2()
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["normalized"] = True
    return Tokenizer.from_str(json.dumps(state)), settings


def _mistral() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = _sentencepiece(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    return tokenizer, _sentencepiece_settings(LLAMA2) | {"tokenizer_class": "LlamaTokenizer", "legacy": False}


def _mistral_args() -> tuple[Tokenizer, dict[str, Any]]:
    """Mistral's newer ones: bytes, and control tokens for all that is no text."""
    pairs = ("INST", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_RESULTS", "THINK")
    marks = [f"[{end}{name}]" for name in pairs for end in ("", "/")]
    tokenizer = _byte_level(["<unk>", "<s>", "</s>", *marks, "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"], [])
    return tokenizer, _sentencepiece_settings(MISTRAL_ARGS)


def _phi3() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = _sentencepiece(["<unk>", "<s>", "</s>"])
    ends = [AddedToken(f"<|{name}|>", rstrip=True, normalized=False) for name in ("user", "assistant", "end", "system")]
    tokenizer.add_special_tokens(ends)
    return tokenizer, _sentencepiece_settings(PHI3)


def _unigram() -> tuple[Tokenizer, dict[str, Any]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        TEXT * 5,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
        ),
    )
    return tokenizer, _sentencepiece_settings(LLAMA2)


_MAKERS = {
    "qwen25": _qwen25,
    "qwen3": _qwen3,
    "llama3": _llama3,
    "llama2": _llama2,
    "llama2_old": _llama2_old,
    "mistral": _mistral,
    "mistral_args": _mistral_args,
    "phi3": _phi3,
    "unigram": _unigram,
}
