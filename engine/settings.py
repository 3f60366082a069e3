"""What the user can set, from `config.toml` in the gateway's home and from command-line flags.

The environment decides two things only: where the home is (NPU_GATEWAY_HOME) and whether tests may
emulate the NPU (NPU_GATEWAY_EMULATE_NPU). Everything else is in the file, because whichever process starts
the shared gateway first would otherwise impose its environment on all others.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from engine.errors import BadInput

DeviceChoice = Literal["auto", "npu", "cpu"]
TokenInputs = Literal["cl100k", "native", "reject"]
LongInputs = Literal["error", "truncate"]
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Home:
    """The folder that holds all state of the gateway, the same on every operating system.

    Not under AppData: packaged Windows apps (the Claude desktop app is one) get their AppData writes
    redirected, so two processes would see two different homes.
    """

    root: Path

    @classmethod
    def locate(cls) -> "Home":
        configured = os.environ.get("NPU_GATEWAY_HOME")
        return cls(Path(configured).expanduser() if configured else Path.home() / ".npu-gateway")

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def contexts(self) -> Path:
        return self.root / "contexts"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"


@dataclass(frozen=True)
class Settings:
    """Every field but `home` is a key of config.toml; `serve` has a flag for those people change often."""

    home: Home
    host: str = "127.0.0.1"
    port: int = 8000
    embed: str = "bge-small-en-v1.5"
    chat: str | None = None
    """None: phi-3-mini-4k-instruct if it is installed, else the small embedded model."""
    device: DeviceChoice = "auto"
    api_key: str | None = None
    strict: bool = False
    """Refuse request fields that the gateway does not know, instead of ignoring and naming them."""
    token_inputs: TokenInputs = "cl100k"  # noqa: S105 - not a password
    """Whose ids token arrays in /v1/embeddings hold: OpenAI's (LangChain sends these) or the model's own."""
    long_inputs: LongInputs = "error"
    """What becomes of a text in /v1/embeddings that is longer than its model reads."""
    embedding_cache_mb: int = 64
    """Memory for vectors of texts embedded before, about 30,000 short ones; 0 switches the cache off."""
    allowed_hosts: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.device not in get_args(DeviceChoice):
            raise BadInput(f"device = {self.device!r}: choose auto, npu or cpu.", param="device")
        if self.token_inputs not in get_args(TokenInputs):
            raise BadInput(
                f"token_inputs = {self.token_inputs!r}: choose cl100k, native or reject.",
                param="token_inputs",
            )
        if self.long_inputs not in get_args(LongInputs):
            raise BadInput(
                f"long_inputs = {self.long_inputs!r}: choose error or truncate.", param="long_inputs"
            )
        if self.embedding_cache_mb < 0:
            raise BadInput("embedding_cache_mb must be 0 or more.", param="embedding_cache_mb")
        if not 0 <= self.port <= 65535:
            raise BadInput(f"port = {self.port}: choose a number from 0 to 65535.", param="port")
        if self.host not in LOOPBACK_HOSTS and not self.api_key:
            raise BadInput(
                f"host = {self.host!r} can be reached from other machines: set api_key in "
                f"{self.home.config_file} first.",
                param="host",
            )

    @classmethod
    def load(cls, **overrides: Any) -> "Settings":
        """Read config.toml; overrides (command-line flags) win over it, None meaning "not given".

        Raises BadInput naming the file and the key when the file cannot be used.
        """
        home = Home.locate()
        values = _read_config(home.config_file) | {k: v for k, v in overrides.items() if v is not None}
        return replace(cls(home=home), **values)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{file} is not valid TOML: {error}") from error
    return {key: _checked(file, key, value) for key, value in raw.items()}


_TOML_TYPES: Mapping[str, tuple[type, str]] = MappingProxyType(
    {
        "host": (str, "text"),
        "port": (int, "a whole number"),
        "embed": (str, "text"),
        "chat": (str, "text"),
        "device": (str, "text"),
        "api_key": (str, "text"),
        "strict": (bool, "true or false"),
        "embedding_cache_mb": (int, "a whole number"),
        "token_inputs": (str, "text"),
        "long_inputs": (str, "text"),
        "allowed_hosts": (list, "a list of names"),
        "aliases": (dict, "a table of names"),
    }
)


def _checked(file: Path, key: str, value: Any) -> Any:
    if key not in _TOML_TYPES:
        known = ", ".join(f.name for f in fields(Settings) if f.name != "home")
        raise BadInput(f"{file}: unknown key {key!r}. Known keys: {known}.", param=key)
    kind, wording = _TOML_TYPES[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadInput(f"{file}: {key} must be {wording}.", param=key)
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({str(k): str(v) for k, v in value.items()})
    return value
