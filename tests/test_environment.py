"""The environment of a server: what it asks for, what others say there, and what is said of the rest."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("typer")

from parrot_compat.cli.environment import settings_of, strangers
from parrot_compat.settings import BadSettings, Settings

ROOT = Path(__file__).parent.parent
LINKS = {
    "PARROT_PORT": "tcp://10.96.0.12:8000",
    "PARROT_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "PARROT_PORT_8000_TCP_ADDR": "10.96.0.12",
    "PARROT_SERVICE_HOST": "10.96.0.12",
    "PARROT_SERVICE_PORT_HTTP": "8000",
    "PARROT_SERVER_PORT": "udp://10.96.0.12:8000",
    "PARROT_SERVER_PORT_8000_UDP_PROTO": "udp",
    "PARROT_SERVER_SERVICE_PORT": "8000",
}
"""What Kubernetes sets for services that are called parrot and parrot-server."""


def test_what_is_asked_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"PARROT_PORT": "9000", "PARROT_DTYPE": "float32", "PARROT_MAX_MODEL_LEN": ""}
    settings = settings_of(environment, port=9001, dtype=None)
    assert (settings.port, settings.dtype, settings.max_model_len) == (9001, "float32", None)
    assert settings.models == ("builtin:tiny",)


def test_every_kind_of_value_can_be_read_from_the_environment() -> None:
    environment = {
        "PARROT_API_KEYS": "a, b,",
        "PARROT_ENABLE_PREFIX_CACHING": "off",
        "PARROT_DRAIN_S": "1.5",
        "PARROT_KV_TOKENS": "4096",
        "PARROT_HOST": "0.0.0.0",
        "PARROT_UPSTREAM_API_KEY": "secret\n",
        "PARROT_PLANNING": "off",  # somebody else's
    }
    settings = settings_of(environment)
    assert settings.api_keys == ("a", "b")
    assert settings.enable_prefix_caching is False
    assert (settings.drain_s, settings.kv_tokens, settings.upstream_api_key) == (1.5, 4096, "secret")


@pytest.mark.parametrize(
    ("variable", "text", "needed"),
    [
        ("PORT", "http", "a whole number"),
        ("ENABLE_PREFIX_CACHING", "maybe", "1 or 0"),
        ("ASYNC_SCHEDULING", "auto", "1 or 0"),
        ("DRAIN_S", "soon", "a number"),
        ("DRAIN", "soon", "a number"),
        ("ENGINES", "1.5", "a whole number"),
    ],
)
def test_what_cannot_be_read_names_the_variable_and_what_is_needed(variable: str, text: str, needed: str) -> None:
    with pytest.raises(BadSettings, match=f"PARROT_{variable}='{text}': {needed} is needed"):
        settings_of({f"PARROT_{variable}": text})


def test_the_time_to_stop_goes_by_the_name_of_its_option_too() -> None:
    assert settings_of({"PARROT_DRAIN": "3"}).drain_s == 3
    assert settings_of({"PARROT_DRAIN": "3", "PARROT_DRAIN_S": "4"}).drain_s == 3
    assert settings_of({"PARROT_DRAIN": "3"}, drain_s=5.0).drain_s == 5


def test_what_kubernetes_says_of_its_services_is_no_setting() -> None:
    assert settings_of(LINKS) == Settings()
    assert strangers(LINKS) == []


def test_keys_that_are_none_are_not_no_keys() -> None:
    for text in (",", " ", ", ,"):
        with pytest.raises(BadSettings, match="PARROT_API_KEYS is set and names no key"):
            settings_of({"PARROT_API_KEYS": text})
    assert settings_of({"PARROT_API_KEYS": ""}).api_keys == ()


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nkey-a\n\n  key-b \r\n#key-c\nkey#d\n")
    assert settings_of({}, api_keys_file=str(file)).api_keys == ("key-a", "key-b", "key#d")
    environment = {"PARROT_API_KEYS_FILE": str(file), "PARROT_API_KEYS": "key-e"}
    assert settings_of(environment).api_keys == ("key-e", "key-a", "key-b", "key#d")
    assert settings_of(environment, api_keys=("key-f",), host="0.0.0.0").api_keys[0] == "key-f"
    assert settings_of({"PARROT_API_KEYS_FILE": "/nowhere"}, api_keys_file=str(file)).api_keys[0] == "key-a"


def test_a_file_of_keys_that_has_none_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name, content, said in (
        ("empty", b"# later\n\n", "names no key"),
        ("bytes", b"\xff\xfe\x00", "it is no text"),
        ("blanks", b"key-a key-b\n", "no blanks inside"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadSettings, match=f"--api-keys-file.*{said}") as refused:
            settings_of({}, api_keys_file=str(tmp_path / name))
        assert "key-a" not in str(refused.value)
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(BadSettings, match=r"--api-keys-file .* cannot be read"):
            settings_of({}, api_keys_file=str(path))


def test_names_without_effect_are_told_with_what_may_have_been_meant() -> None:
    environment = {"PARROT_MAX_MODEL_LENGTH": "9", "PARROT_BLOCK_SIZE": "8", "PARROT_XYZ": "", "OTHER": "1"}
    assert strangers(environment | {"PARROT_QQQQQQQ": "1"}) == [
        "PARROT_BLOCK_SIZE (is it PARROT_PAGE_SIZE?)",
        "PARROT_MAX_MODEL_LENGTH (is it PARROT_MAX_MODEL_LEN?)",
        "PARROT_QQQQQQQ",
    ]


def test_every_name_that_is_used_or_described_is_known() -> None:
    read = [*(ROOT / "parrot_compat").rglob("*.py"), *(ROOT / "recipes").glob("*.py"), *ROOT.glob("docs/*.md")]
    used = {name for path in read for name in re.findall(r"PARROT_[A-Z_]*[A-Z]", path.read_text())}
    used |= {f"PARROT_{item.name.upper()}" for item in fields(Settings)}
    assert len(used) > 30 and strangers(dict.fromkeys(used, "1")) == []
