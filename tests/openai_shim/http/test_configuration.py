"""What config.toml says about who may ask."""

from pathlib import Path

import pytest

from engine.errors import BadInput
from engine.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NPU_GATEWAY_HOME", str(tmp_path))
    return tmp_path


def test_keys_come_from_the_configuration_and_from_a_file(home: Path) -> None:
    (home / "keys.txt").write_text("# for the editor\nk3\n\n  k4 \n")
    (home / "config.toml").write_text('api_key = "k1"\napi_keys = ["k2"]\napi_key_file = "keys.txt"\n')

    assert Settings.load().keys() == ("k1", "k2", "k3", "k4")


def test_without_configured_keys_there_are_none(home: Path) -> None:
    assert Settings.load().keys() == ()


@pytest.mark.parametrize("keys", [None, "", "# nothing but a remark\n"], ids=["no file", "empty", "remark"])
def test_a_key_file_without_keys_is_an_error_and_not_an_open_door(home: Path, keys: str | None) -> None:
    if keys is not None:
        (home / "keys.txt").write_text(keys)

    with pytest.raises(BadInput, match="api_key_file"):
        Settings.load(api_key_file="keys.txt").keys()


@pytest.mark.parametrize(
    ("values", "param"),
    [({"api_keys": ("k1", " ")}, "api_keys"), ({"cors_origins": ("*",)}, "cors_origins")],
)
def test_what_would_let_everybody_in_is_refused(home: Path, values: dict[str, object], param: str) -> None:
    with pytest.raises(BadInput) as refused:
        Settings.load(**values)

    assert refused.value.field == param


@pytest.mark.parametrize("values", [{"api_keys": ("k1",)}, {"api_key_file": "keys.txt"}, {"api_key": "k1"}])
def test_with_any_kind_of_key_other_machines_may_be_served(home: Path, values: dict[str, object]) -> None:
    assert Settings.load(host="0.0.0.0", **values).host == "0.0.0.0"
