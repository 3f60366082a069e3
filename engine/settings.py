"""What the user can set, from `config.toml` in the gateway's home and from command-line flags.

The environment decides two things only: where the home is (NPU_GATEWAY_HOME) and whether tests may
emulate the NPU (NPU_GATEWAY_EMULATE_NPU). Everything else is in the file, because whichever process starts
the shared gateway first would otherwise impose its environment on all others.
"""

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from engine.errors import BadInput

DeviceChoice = Literal["auto", "npu", "cpu"]
TokenInputs = Literal["cl100k", "native", "reject"]
LogLevel = Literal["info", "debug"]
LongInputs = Literal["error", "truncate"]
LEAST_KV_MB = 192
LEAST_CONTEXT_TOKENS = 256
"""Fewer leave no room for an answer to a short question; Phi-3-mini needs 192 MiB for them."""
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
        """Raises BadInput for a folder that would be another one for each program that asks."""
        configured = os.environ.get("NPU_GATEWAY_HOME") or "~/.npu-gateway"
        try:
            root = Path(configured).expanduser()
        except RuntimeError as error:
            raise BadInput(
                f"{configured} is no folder here: set NPU_GATEWAY_HOME to a whole path."
            ) from error
        if not root.is_absolute():
            raise BadInput(
                f"NPU_GATEWAY_HOME = {configured!r} depends on where a program starts: give a whole path."
            )
        return cls(root)

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

    @property
    def out(self) -> Path:
        """Results that were too large for a conversation."""
        return self.root / "out"


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
    api_keys: tuple[str, ...] = ()
    """More of them, say one for each program that may ask."""
    api_key_file: str | None = None
    """A file with more keys, one a line; lines that begin with # are remarks. Relative to the home."""
    cors_origins: tuple[str, ...] = ()
    """Origins, such as http://localhost:3000, whose web pages may use the gateway."""
    tls_certificate: str | None = None
    """A PEM file, with the whole chain; with tls_key, the gateway speaks HTTPS. Relative to the home."""
    tls_key: str | None = None
    log_level: LogLevel = "info"
    """"debug" also logs where each batch of texts ran, and the expected and real time of it."""
    log_json: bool = False
    """Write gateway.log as one JSON object a line."""
    strict: bool = False
    """Refuse request fields that the gateway does not know, instead of ignoring and naming them."""
    token_inputs: TokenInputs = "cl100k"  # noqa: S105 - not a password
    """Whose ids token arrays hold (inputs, prompts): OpenAI's (LangChain sends these) or the model's own."""
    long_inputs: LongInputs = "error"
    """What becomes of a text in /v1/embeddings that is longer than its model reads."""
    embedding_cache_mb: int = 64
    """Memory for vectors of texts embedded before, about 30,000 short ones; 0 switches the cache off."""
    keep_alive_minutes: float = 10.0
    """How long a chat model stays in memory without work; 0 keeps it. The small embedded ones stay, and give
    back only the memory of their conversations."""
    chat_kv_mb: int = 1536
    """Most MiB, per chat model, for the keys and values of its conversations. The default holds 2,048 tokens
    of Phi-3-mini, whose float32 keys and values take 0.75 MiB each."""
    chat_context_tokens: int | None = None
    """Longest conversation of a chat model; None for as long as the model and chat_kv_mb allow."""
    chat_answer_tokens: int = 2048
    """Longest answer to a request that names no number: a small model that does not find an end would else
    fill its context."""
    chat_wait_seconds: float = 60.0
    """A chat that would have to wait longer for a place is refused with the time after which to try again."""
    chat_speculation: bool = False
    """Let the chat model check guesses at several tokens in one step: faster where answers repeat the prompt,
    but their last digits, and so now and then their words, differ from those without it."""
    allowed_hosts: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.embedding_cache_mb < 0:
            raise BadInput("embedding_cache_mb must be 0 or more.", field="embedding_cache_mb")
        if not 0 <= self.keep_alive_minutes < math.inf:
            raise BadInput("keep_alive_minutes must be 0 or more.", field="keep_alive_minutes")
        if self.chat_kv_mb < LEAST_KV_MB:
            raise BadInput(f"chat_kv_mb must be {LEAST_KV_MB} or more.", field="chat_kv_mb")
        if self.chat_context_tokens is not None and self.chat_context_tokens < LEAST_CONTEXT_TOKENS:
            raise BadInput(
                f"chat_context_tokens must be {LEAST_CONTEXT_TOKENS} or more.", field="chat_context_tokens"
            )
        if self.chat_answer_tokens < 1:
            raise BadInput("chat_answer_tokens must be 1 or more.", field="chat_answer_tokens")
        if not self.chat_wait_seconds > 0:
            raise BadInput("chat_wait_seconds must be more than 0.", field="chat_wait_seconds")
        if not 0 <= self.port <= 65535:
            raise BadInput(f"port = {self.port}: choose a number from 0 to 65535.", field="port")
        if "*" in self.cors_origins:
            raise BadInput(
                'cors_origins = ["*"] would let every web page use the gateway: name each origin.',
                field="cors_origins",
            )
        if not all(key.strip() for key in self.api_keys):
            raise BadInput("api_keys must not hold an empty key.", field="api_keys")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise BadInput("tls_certificate and tls_key must be set together.", field="tls_key")
        has_keys = self.api_key or self.api_keys or self.api_key_file
        if self.host not in LOOPBACK_HOSTS and not has_keys:
            raise BadInput(
                f"host = {self.host!r} can be reached from other machines: set api_key in "
                f"{self.home.config_file} first.",
                field="host",
            )

    @classmethod
    def load(cls, **overrides: Any) -> "Settings":
        """Read config.toml; overrides (command-line flags) win over it, None meaning "not given".

        Raises BadInput naming the file and the key when the file cannot be used.
        """
        home = Home.locate()
        values = _read_config(home.config_file) | {k: v for k, v in overrides.items() if v is not None}
        return replace(cls(home=home), **values)

    def keys(self) -> tuple[str, ...]:
        """All API keys; none means that programs on this machine need none. Raises BadInput."""
        own = (self.api_key,) if self.api_key else ()
        in_file = _keys_in(self.home.root / self.api_key_file) if self.api_key_file else ()
        return (*own, *self.api_keys, *in_file)


def _keys_in(file: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in file.expanduser().read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"api_key_file {file} cannot be read: {error}", field="api_key_file") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise BadInput(f"api_key_file {file} holds no key.", field="api_key_file")
    return keys


def _read_config(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # Notepad writes a BOM
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{file} is not valid TOML: {error}") from error
    return {key: _checked(file, key, value) for key, value in raw.items()}


_HINTS: Mapping[str, Any] = MappingProxyType(
    {name: hint for name, hint in get_type_hints(Settings).items() if name != "home"}
)
_WORDINGS: Mapping[type, str] = MappingProxyType(
    {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        tuple: "a list of texts",
        Mapping: "a table of texts",
    }
)
"""What a setting must be, as a person would say it, by the type of its field."""


def _checked(file: Path, key: str, value: Any) -> Any:
    """The value as its field's own type. Raises BadInput naming the file and the key."""
    if key not in _HINTS:
        raise BadInput(f"{file}: unknown key {key!r}. Known keys: {', '.join(_HINTS)}.", field=key)
    hint = _without_none(_HINTS[key])
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise BadInput(f"{file}: {key} = {value!r}: choose {_either(get_args(hint))}.", field=key)
        return value
    kind = get_origin(hint) or hint
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is Mapping and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return MappingProxyType(value)
    if type(value) is not kind:
        raise BadInput(f"{file}: {key} must be {_WORDINGS[kind]}.", field=key)
    return value


def _without_none(hint: Any) -> Any:
    """`str` of `str | None`."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if get_origin(hint) in (Union, UnionType) else hint


def _either(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
