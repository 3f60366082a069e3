"""What config.toml may say."""

from pathlib import Path

import pytest

from engine.errors import BadInput
from engine.settings import Home, Settings


def load(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("NPU_GATEWAY_HOME", str(folder))
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return Settings.load()


def test_the_file_sets_keep_alive_context_and_kv_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "keep_alive_minutes = 5\nchat_context_tokens = 1024\nchat_kv_mb = 512"
    settings = load(tmp_path, text, monkeypatch)

    assert (settings.keep_alive_minutes, settings.chat_context_tokens, settings.chat_kv_mb) == (5, 1024, 512)


def test_keep_alive_may_be_a_part_of_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path, "keep_alive_minutes = 0.5", monkeypatch).keep_alive_minutes == 0.5


def test_every_key_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'host = "::1"\nport = 9000\nlog_json = true\ncors_origins = ["http://localhost:3000"]\n'
    settings = load(tmp_path, text + '[aliases]\nsmall = "bge-small-en-v1.5"', monkeypatch)

    assert (settings.host, settings.port, settings.log_json) == ("::1", 9000, True)
    assert settings.cors_origins == ("http://localhost:3000",)
    assert settings.aliases == {"small": "bge-small-en-v1.5"}


def test_a_file_written_by_notepad_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path, "\ufeffport = 9000", monkeypatch).port == 9000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep_alive_minutes = -1", "keep_alive_minutes must be 0 or more"),
        ("keep_alive_minutes = inf", "keep_alive_minutes must be 0 or more"),
        ("keep_alive_minutes = nan", "keep_alive_minutes must be 0 or more"),
        ("keep_alive_minutes = true", "keep_alive_minutes must be a number"),
        ('keep_alive_minutes = "5m"', "keep_alive_minutes must be a number"),
        ("chat_kv_mb = 0", "chat_kv_mb must be 192 or more"),
        ("chat_kv_mb = 0.5", "chat_kv_mb must be a whole number"),
        ("chat_context_tokens = 255", "chat_context_tokens must be 256 or more"),
        ('port = "8000"', "config.toml: port must be a whole number"),
        ("port = true", "config.toml: port must be a whole number"),
        ("strict = 1", "config.toml: strict must be true or false"),
        ("chat = 3", "config.toml: chat must be text"),
        ('api_keys = "k1"', "config.toml: api_keys must be a list of texts"),
        ("api_keys = [1]", "config.toml: api_keys must be a list of texts"),
        ("aliases = []", "config.toml: aliases must be a table of texts"),
        ('device = "gpu"', "config.toml: device = 'gpu': choose auto, npu or cpu"),
        ('log_level = "loud"', "config.toml: log_level = 'loud': choose info or debug"),
        ('home = "here"', "config.toml: unknown key 'home'. Known keys: host, port, "),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        load(tmp_path, text, monkeypatch)


@pytest.mark.parametrize("folder", ["here", "./here", "~nobody-by-this-name/here"])
def test_a_home_that_is_no_whole_path_is_refused(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program would mean another folder, and start a gateway of its own."""
    monkeypatch.setenv("NPU_GATEWAY_HOME", folder)

    with pytest.raises(BadInput, match="whole path"):
        Home.locate()
