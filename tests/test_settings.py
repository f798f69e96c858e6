"""Settings: the command line, then the environment, then the defaults; and nothing that contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.settings import BadSettings, Settings


def test_what_is_asked_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"PARROT_PORT": "9000", "PARROT_DTYPE": "float32", "PARROT_MAX_MODEL_LEN": ""}
    settings = Settings.read(environment, port=9001, dtype=None)
    assert (settings.port, settings.dtype, settings.max_model_len) == (9001, "float32", None)
    assert settings.models == ("builtin:tiny",)


def test_every_kind_of_value_can_be_read_from_the_environment() -> None:
    environment = {
        "PARROT_API_KEYS": "a, b,",
        "PARROT_ENABLE_PREFIX_CACHING": "off",
        "PARROT_DRAIN_S": "1.5",
        "PARROT_KV_TOKENS": "4096",
        "PARROT_HOST": "0.0.0.0",
        "PARROT_PLANNING": "off",  # somebody else's
    }
    settings = Settings.read(environment)
    assert settings.api_keys == ("a", "b")
    assert settings.enable_prefix_caching is False
    assert (settings.drain_s, settings.kv_tokens) == (1.5, 4096)


@pytest.mark.parametrize(
    ("variable", "text"),
    [("PORT", "http"), ("ENABLE_PREFIX_CACHING", "maybe"), ("DRAIN_S", "soon"), ("ENGINES", "1.5")],
)
def test_what_cannot_be_read_names_the_variable(variable: str, text: str) -> None:
    with pytest.raises(BadSettings, match=f"PARROT_{variable}='?{text}"):
        Settings.read({f"PARROT_{variable}": text})


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
    assert Settings.read({"PARROT_MODEL": "a", "PARROT_MORE_MODELS": "b"}, upstream=upstream).models == ("a", "b")


def test_options_of_our_engine_that_mean_nothing_before_an_upstream_are_named() -> None:
    given = Settings(
        upstream="http://x/v1", dtype="float32", engines=3, reasoning_parser="qwen3", tool_call_parser="hermes"
    )
    assert set(given.of_our_engine) == {"--dtype", "--engines", "--reasoning-parser"}
    assert not Settings(upstream="http://x/v1").of_our_engine


def test_keys_are_not_printed() -> None:
    settings = Settings(host="0.0.0.0", api_keys=("secret",), upstream="http://x/v1", upstream_api_key="secret")
    assert "secret" not in repr(settings)
