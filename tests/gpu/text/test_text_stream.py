"""What a text stream shows, put together, is what Hugging Face decodes, cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from parrot_compat.core.errors import ModelRefused
from parrot_compat.core.prompt import Text
from parrot_compat.gpu.text.text_stream import TextDecoder
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.vocabularies import STYLES, save_vocabulary


@pytest.fixture(scope="module")
def tokenizers_by_style(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HuggingFaceTokenizer]:
    root = tmp_path_factory.mktemp("vocabularies")
    return {style: HuggingFaceTokenizer(save_vocabulary(style, root / style)) for style in STYLES}


@pytest.fixture(scope="module")
def more_tokenizers(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, HuggingFaceTokenizer]:
    folder = save_vocabulary("mistral_args", tmp_path_factory.mktemp("vocabulary") / "m")
    return tokenizers_by_style | {"mistral_args": HuggingFaceTokenizer(folder)}


def expected(tokenizer: HuggingFaceTokenizer, ids: Sequence[int], stop: Sequence[str]) -> str:
    """The definition, read character by character: the first complete stop string ends the text before it."""
    text = tokenizer._hf.decode(list(ids), skip_special_tokens=True)
    for end in range(1, len(text) + 1):
        met = [string for string in stop if text[:end].endswith(string)]
        if met:
            return text[: end - max(map(len, met))]
    return text


def streamed(tokenizer: HuggingFaceTokenizer, ids: Sequence[int], stop: Sequence[str], sizes: Sequence[int]) -> str:
    stream = tokenizer.text_stream(tuple(stop))
    shown, at, turn = [], 0, 0
    while at < len(ids):
        size = sizes[turn % len(sizes)]
        shown.append(stream.push(ids[at : at + size]))
        at, turn = at + size, turn + 1
    shown.append(stream.flush())
    text = "".join(shown)
    whole = tokenizer._hf.decode(list(ids), skip_special_tokens=True)
    assert stream.stopped == any(string in whole for string in stop)
    return text


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
# Short strings over few characters meet, overlap and nest often.
STOPS = st.lists(st.text("ab \nü🦜<", min_size=1, max_size=4), max_size=4)


@pytest.mark.parametrize("style", STYLES)
@given(data=st.data(), sizes=SIZES)
@settings(max_examples=150, deadline=None)
def test_random_tokens_stream_as_they_decode(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str, data: st.DataObject, sizes: list[int]
) -> None:
    tokenizer = tokenizers_by_style[style]
    few = data.draw(st.lists(st.integers(0, tokenizer.vocabulary + 3), min_size=1, max_size=6))
    ids = data.draw(st.lists(st.one_of(st.sampled_from(few), st.integers(0, tokenizer.vocabulary + 3)), max_size=24))
    text = tokenizer.decode(ids)
    pieces = [text[at : at + 3] for at in range(0, len(text) - 3, 4)]
    stop = data.draw(st.lists(st.sampled_from(pieces), max_size=2)) if pieces else []
    assert streamed(tokenizer, ids, stop, sizes) == expected(tokenizer, ids, stop)


@pytest.mark.parametrize("style", STYLES)
@given(text=st.text("ab \nü🦜语<|im_end|>\x00", max_size=40), stop=STOPS, sizes=SIZES)
@settings(max_examples=150, deadline=None)
def test_texts_stream_as_they_decode_up_to_the_first_stop_string(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str, text: str, stop: list[str], sizes: list[int]
) -> None:
    tokenizer = tokenizers_by_style[style]
    ids = tokenizer.encode(Text(text))
    assert streamed(tokenizer, ids, stop, sizes) == expected(tokenizer, ids, stop)


@pytest.mark.parametrize("style", ["qwen25", "mistral"])
@given(data=st.binary(max_size=24), sizes=SIZES)
@settings(max_examples=300, deadline=None)
def test_broken_utf8_streams_as_it_decodes(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str, data: bytes, sizes: list[int]
) -> None:
    tokenizer = tokenizers_by_style[style]
    ids = byte_ids(tokenizer, data)
    assert streamed(tokenizer, ids, (), sizes) == expected(tokenizer, ids, ())


def byte_ids(tokenizer: HuggingFaceTokenizer, data: bytes) -> list[int]:
    """One token a byte."""
    from parrot_compat.gpu.text.text_stream import _byte_alphabet

    vocabulary = tokenizer._hf.get_vocab()
    if "<0x00>" in vocabulary:
        return [vocabulary[f"<0x{byte:02X}>"] for byte in data]
    characters = {byte: character for character, byte in _byte_alphabet().items()}
    return [vocabulary[characters[byte]] for byte in data]


def test_a_character_is_shown_when_its_last_byte_is_there(tokenizers_by_style: dict[str, HuggingFaceTokenizer]) -> None:
    tokenizer = tokenizers_by_style["qwen25"]
    stream = tokenizer.text_stream()
    assert [stream.push([token]) for token in byte_ids(tokenizer, "é🦜!".encode())] == ["", "é", "", "", "", "🦜", "!"]
    assert stream.flush() == ""


def test_a_run_of_byte_tokens_is_shown_when_it_ends(tokenizers_by_style: dict[str, HuggingFaceTokenizer]) -> None:
    """One bad byte makes every byte of its run unreadable, the good ones before it too: so Hugging Face has it."""
    tokenizer = tokenizers_by_style["mistral"]
    word = tokenizer._hf.get_vocab()["a"]
    stream = tokenizer.text_stream()
    run = byte_ids(tokenizer, "🦜".encode())
    assert [stream.push([token]) for token in [word, *run, word]] == ["a", "", "", "", "", "🦜a"]
    assert stream.push(run[:2]) + stream.flush() == "��"


@pytest.mark.parametrize("style", STYLES)
def test_without_stop_strings_plain_words_are_shown_at_once(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str
) -> None:
    tokenizer = tokenizers_by_style[style]
    stream, so_far = tokenizer.text_stream(), []
    for token in tokenizer.encode(Text("The quick brown fox jumps over the lazy dog")):
        so_far.append(token)
        shown = stream.push([token])
        assert shown == tokenizer.decode(so_far)[-len(shown) :] if shown else not tokenizer.decode(so_far[-1:]).strip()
    assert stream.flush() == ""


def test_only_what_may_become_a_stop_string_is_held_back(tokenizers_by_style: dict[str, HuggingFaceTokenizer]) -> None:
    tokenizer = tokenizers_by_style["llama3"]
    stream = tokenizer.text_stream(("END.", "NO"))

    def push(text: str) -> str:
        return stream.push(byte_ids(tokenizer, text.encode()))

    assert push("The EN") == "The "
    assert push("D") == ""
    assert push(" of N") == "END of "
    assert not stream.stopped
    assert push("EEND.x") == "NE"
    assert stream.stopped
    assert push("more") == "" and stream.flush() == ""


def test_held_text_comes_out_at_the_end_if_the_stop_string_did_not(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer],
) -> None:
    tokenizer = tokenizers_by_style["llama3"]
    stream = tokenizer.text_stream(("END",))
    assert stream.push(byte_ids(tokenizer, b"the EN")) == "the "
    assert stream.flush() == "EN"
    assert not stream.stopped


def test_of_two_stop_strings_the_one_that_is_complete_first_ends_the_text(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer],
) -> None:
    tokenizer = tokenizers_by_style["llama3"]
    ids = byte_ids(tokenizer, b"one two three")
    assert streamed(tokenizer, ids, ("ne two", "two", "e"), [13]) == "on"
    assert streamed(tokenizer, ids, ("one two t", "two"), [1]) == "one "
    assert streamed(tokenizer, ids, ("two", "one two"), [4]) == ""


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.BPEDecoder(),
        decoders.CTC(),
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)]),
        decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")]),
    ],
    ids=["BPEDecoder", "CTC", "Strip", "Replace"],
)
def test_a_decoder_that_looks_ahead_is_refused(decoder: object) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    tokenizer.decoder = decoder
    with pytest.raises(ModelRefused, match="cannot be streamed exactly"):
        TextDecoder(tokenizer)


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece(), decoders.Sequence([decoders.ByteLevel()])])
@given(ids=st.lists(st.integers(0, 5), max_size=8), sizes=SIZES)
@settings(max_examples=60, deadline=None)
def test_other_decoders_stream_as_they_decode(decoder: object, ids: list[int], sizes: list[int]) -> None:
    tokenizer = Tokenizer(models.WordLevel({"one": 0, "##two": 1, ".": 2, "n't": 3, "s": 4, "[UNK]": 5}, "[UNK]"))
    if decoder is not None:
        tokenizer.decoder = decoder
    stream = TextDecoder(tokenizer).stream()
    assert "".join([stream.push([token]) for token in ids]) + stream.flush() == tokenizer.decode(ids)
    assert sizes


@pytest.mark.parametrize("style", ["qwen25", "llama2", "mistral_args"])
@given(data=st.data(), sizes=SIZES)
@settings(max_examples=100, deadline=None)
def test_control_tokens_that_are_asked_for_stand_in_the_text_where_they_were_drawn(
    more_tokenizers: dict[str, HuggingFaceTokenizer], style: str, data: st.DataObject, sizes: list[int]
) -> None:
    tokenizer = more_tokenizers[style]
    special = {token.content: at for at, token in tokenizer._hf.added_tokens_decoder.items() if token.special}
    shown = data.draw(st.lists(st.sampled_from(sorted(special)), max_size=3, unique=True))
    texts = tokenizer.encode(Text("The quick brown fox é🦜 jumps"))
    ids = data.draw(st.lists(st.one_of(st.sampled_from(sorted(special.values())), st.sampled_from(texts)), max_size=20))
    stream, said, at = tokenizer.text_stream((), (*shown, "[no token of this one]")), [], 0
    for size in sizes * len(ids):
        said.append(stream.push(ids[at : at + size]))
        at += size
    kept = [id for id in ids if id not in special.values() or id in {special[name] for name in shown}]
    assert "".join(said) + stream.flush() == tokenizer.decode(kept, skip_special_tokens=False)


def test_a_shown_control_token_may_end_a_text(more_tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    tokenizer = more_tokenizers["mistral_args"]
    drawn = tokenizer.encode(Text("a[TOOL_CALLS]b"))
    stream = tokenizer.text_stream(("[TOOL",), ("[TOOL_CALLS]",))
    assert stream.push(drawn) + stream.flush() == "a" and stream.stopped
    assert tokenizer.text_stream(("[TOOL",)).push(drawn) == "ab"


@pytest.mark.parametrize("style", STYLES)
def test_a_text_goes_on_in_the_middle_of_its_prompts(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str
) -> None:
    """The blank before a word is text there; some decoders take it from the beginning of a text alone."""
    tokenizer = tokenizers_by_style[style]
    prompt, whole = (tokenizer.encode(Text(text)) for text in ("The quick brown", "The quick brown fox jumps"))
    drawn = whole[len(prompt) :]
    assert whole[: len(prompt)] == prompt
    for stop, text in {(): " fox jumps", (" fox",): "", ("x j",): " fo"}.items():
        stream = tokenizer.text_stream(stop)
        stream.follow(None if stop == ("x j",) else prompt[-1])
        assert "".join(stream.push([token]) for token in drawn) + stream.flush() == text
        assert stream.met == (stop[0] if stop else None)
    end, stream = tokenizer._hf.eos_token_id, tokenizer.text_stream()
    if not tokenizer.decode([end]):  # else Hugging Face reads its own </s> as text
        stream.follow(end)
        assert stream.push(drawn) + stream.flush() == tokenizer.decode(drawn), "behind a control token it begins anew"


@pytest.mark.parametrize("style", STYLES)
@given(data=st.data(), sizes=SIZES)
@settings(max_examples=100, deadline=None)
def test_random_tokens_add_to_a_prompt_what_decoding_both_adds(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str, data: st.DataObject, sizes: list[int]
) -> None:
    tokenizer = tokenizers_by_style[style]
    prompt = tokenizer.encode(Text(data.draw(st.text("ab fox", max_size=8)) + "a"))
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary + 3), max_size=16))
    stream, said, at = tokenizer.text_stream(), [], 0
    stream.follow(prompt[-1])
    for size in sizes * len(ids):
        said.append(stream.push(ids[at : at + size]))
        at += size
    assert tokenizer.decode(prompt) + "".join(said) + stream.flush() == tokenizer.decode([*prompt, *ids])


@pytest.mark.parametrize("style", STYLES)
@given(text=st.text("ab \n<", max_size=30), stop=STOPS, free=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_a_stop_string_that_is_complete_where_none_may_stop_is_text(
    tokenizers_by_style: dict[str, HuggingFaceTokenizer], style: str, text: str, stop: list[str], free: int
) -> None:
    tokenizer = tokenizers_by_style[style]
    ids = tokenizer.encode(Text(text))
    stream = tokenizer.text_stream(tuple(stop))
    shown = "".join(stream.push([token], may_stop=at >= free) for at, token in enumerate(ids)) + stream.flush()
    whole, before = tokenizer.decode(ids), len(tokenizer.decode(ids[:free]))
    met = [(at + len(one), at) for one in stop for at in range(len(whole)) if whole[at:].startswith(one)]
    met = [(end, at) for end, at in met if end > before]
    assert shown == (whole[: min(met)[1]] if met else whole)
