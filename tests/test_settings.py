"""Settings: nothing that contradicts itself, and nothing that is found out only when a model has been loaded."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.settings import BadSettings, Settings


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"host": "0.0.0.0"}, "--api-key"),
        ({"host": "example.org"}, "--api-key"),
        ({"port": 70_000}, "--port"),
        ({"engines": 0}, "--engines"),
        ({"drain_s": -1.0}, "--drain"),
        ({"drain_s": float("inf")}, "--drain"),
        ({"drain_s": float("nan")}, "--drain"),
        ({"max_open_calls": 0}, "--max-open-calls "),
        ({"max_open_calls_per_tenant": 0}, "--max-open-calls-per-tenant"),
        ({"max_kept_bytes_per_tenant": 0}, "--max-kept-bytes-per-tenant"),
        ({"max_num_seqs": 0}, "--max-num-seqs 0"),
        ({"max_model_len": -5}, "--max-model-len -5"),
        ({"threads": 0}, "--threads 0"),
        ({"gpu_memory_utilization": 1.5, "engines": 2}, "--gpu-memory-utilization 1.5"),
        ({"gpu_memory_utilization": 0.0}, "--gpu-memory-utilization"),
        ({"api_keys": (" ",)}, "--api-key"),
        ({"device": "gpu"}, "--device gpu: there is auto, cpu, cuda"),
        ({"dtype": "int3"}, "--dtype int3: .*bfloat16"),
        ({"log_level": "loud"}, "--log-level loud: .*debug"),
        ({"allowed_origins": ("*",)}, "--allowed-origins"),
        ({"allowed_origins": ("app.example",)}, "--allowed-origins app.example"),
        ({"allowed_origins": ("https://app.example/page",)}, "--allowed-origins https://app.example/page"),
        ({"upstream": "localhost:8001"}, "--upstream"),
        ({"upstream": "http:///v1"}, "--upstream"),
        ({"upstream": "http://[::1:8001/v1"}, "--upstream"),
        ({"upstream": "http://127.0.0.1:port/v1"}, "--upstream"),
        ({"upstream": "http://a server/v1"}, "--upstream"),
        ({"upstream": "http://x/v1", "served_model_name": ("m",)}, "--served-model-name"),
        ({"more_models": ("b",), "served_model_name": ("m",)}, "--served-model-name"),
        ({"model": "a", "more_models": ("a",)}, "--model"),
        ({"reasoning_parser": "loud"}, "--reasoning-parser"),
        ({"tool_call_parser": "loud"}, "--tool-call-parser"),
        ({"policy": "no-magic"}, "--policy no-magic: .*no-slack"),
    ],
)
def test_what_contradicts_itself_names_the_option(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(BadSettings, match=named):
        Settings(**asked)


def test_the_built_in_model_stands_in_only_where_our_own_engine_serves_and_none_was_asked_for() -> None:
    upstream = "http://x/v1"
    assert Settings(more_models=("b",)).models == ("builtin:tiny", "b")
    assert Settings(upstream=upstream).models == ()
    assert Settings(upstream=upstream, model="builtin:tiny").models == ("builtin:tiny",)
    assert Settings(model="a", more_models=("b",), upstream=upstream).models == ("a", "b")


def test_options_of_our_engine_that_mean_nothing_before_an_upstream_are_named() -> None:
    given = Settings(
        upstream="http://x/v1", dtype="float32", engines=3, reasoning_parser="qwen3", tool_call_parser="hermes"
    )
    assert set(given.of_our_engine) == {"--dtype", "--engines", "--reasoning-parser"}
    assert not Settings(upstream="http://x/v1").of_our_engine


def test_keys_and_passwords_are_not_printed() -> None:
    upstream = "http://me:secret@x/v1"
    settings = Settings(host="0.0.0.0", api_keys=("secret",), upstream=upstream, upstream_api_key="secret")
    assert "secret" not in repr(settings)
    for broken in ("http://me:secret@x:port/v1", "http://me:se/secret@x/v1 ", "me:secret@x/v1"):
        with pytest.raises(BadSettings, match=r"--upstream '(http://)?x") as refused:
            Settings(upstream=broken)
        assert "secret" not in str(refused.value)


def test_a_newline_at_the_end_of_a_key_is_not_part_of_it() -> None:
    settings = Settings(api_keys=("secret\n", " b\t"), upstream="http://x/v1", upstream_api_key="secret\r\n")
    assert (settings.api_keys, settings.upstream_api_key) == (("secret", "b"), "secret")
    assert Settings(upstream_api_key=" ").upstream_api_key is None


@pytest.mark.parametrize("key", ["sec\nret", "sec ret", "sec\x00ret", "s\u00e9cret", "sec\x7fret"])
def test_a_key_that_no_header_can_have_is_refused_unprinted(key: str) -> None:
    for asked, named in (
        ({"api_keys": ("a", key)}, "--api-key"),
        ({"upstream_api_key": key}, "PARROT_UPSTREAM_API_KEY"),
    ):
        with pytest.raises(BadSettings, match=named) as refused:
            Settings(**asked)
        assert "ret" not in str(refused.value).replace("secret", "")


def test_levels_of_the_log_are_written_in_any_case() -> None:
    assert Settings(log_level="WARNING").log_level == "warning"
