"""What a model's own files may ask of the runtime: to compute, with what lies in the model's folder.

onnxruntime-genai loads whatever native library a genai_config.json names, and onnxruntime reads whatever file
(or address in memory) a tensor names. A model comes from elsewhere, so both are told only what is known here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from engine.errors import ModelSupplyError

CONFIG = "genai_config.json"
_MOST_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class _Values:
    """An object whose keys do not matter, as long as its values are of these kinds."""

    kinds: tuple[type, ...]


_PROVIDERS: tuple[list[dict[str, Any]], ...] = ([], [{"cpu": {}}])
_KNOWN: Mapping[str, Any] = {
    "model": {
        "type": (str,),
        "vocab_size": (int,),
        "context_length": (int,),
        "bos_token_id": (int, list),
        "eos_token_id": (int, list),
        "pad_token_id": (int, list),
        "sep_token_id": (int,),
        "decoder": {
            "filename": (str,),
            "head_size": (int,),
            "hidden_size": (int,),
            "num_attention_heads": (int,),
            "num_hidden_layers": (int,),
            "num_key_value_heads": (int,),
            "inputs": _Values((str,)),
            "outputs": _Values((str,)),
            "session_options": {
                "log_id": (str,),
                "log_severity_level": (int,),
                "intra_op_num_threads": (int,),
                "inter_op_num_threads": (int,),
                "enable_cpu_mem_arena": (bool,),
                "enable_mem_pattern": (bool,),
                "graph_optimization_level": (str,),
                "provider_options": (list,),
            },
        },
    },
    "search": _Values((bool, int, float)),
}
"""The kinds of value by key.

What publishers write for decoders on the CPU (https://onnxruntime.ai/docs/genai/reference/config.html). Left
out are custom_ops_library, other providers, run options, profiling, and settings of sessions by free names.
"""


def require_contained(folder: Path) -> None:
    """Raises ModelSupplyError if a file of the model asks for more, or lies outside its folder."""
    for path in folder.rglob("*"):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelSupplyError(f"{path} leads out of the model's folder, so the model is not used.")
    graphs = set(folder.glob("*.onnx"))
    if (folder / CONFIG).exists():
        graphs.add(_configured_graph(folder))
    for graph in graphs:
        _require_contained_data(graph)


def _configured_graph(folder: Path) -> Path:
    file = folder / CONFIG
    try:
        if file.stat().st_size > _MOST_CONFIG_BYTES:
            raise ModelSupplyError(f"{file} is larger than any configuration, so the model is not used.")
        config = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelSupplyError(f"{file} cannot be read ({error}), so the model is not used.") from error
    if unknown := next(_unknown(config, _KNOWN, ""), None):
        raise ModelSupplyError(f"{file} sets {unknown}, which a model may not; it is not used.")
    try:
        decoder = config["model"]["decoder"]
        filename = str(decoder["filename"])
    except KeyError as error:
        raise ModelSupplyError(f"{file} does not set {error}, so the model is not used.") from error
    if decoder.get("session_options", {}).get("provider_options", []) not in _PROVIDERS:
        raise ModelSupplyError(f"{file} is for other devices than the CPU, so the model is not used.")
    if not _lies_in(folder, filename):
        raise ModelSupplyError(
            f"{file} names {filename!r}, which is no file beside it; the model is not used."
        )
    return folder / filename


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The runtime heeds every occurrence of a key, Python the last one only."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _unknown(value: Any, known: Any, path: str) -> Iterator[str]:
    """The paths of what is not known, or of another kind than known."""
    match known:
        case Mapping() if isinstance(value, dict):
            for key, inner in value.items():
                inner_path = f"{path}.{key}".lstrip(".")
                if key in known:
                    yield from _unknown(inner, known[key], inner_path)
                else:
                    yield inner_path
        case _Values(kinds) if isinstance(value, dict):
            yield from (f"{path}.{key}" for key, inner in value.items() if not isinstance(inner, kinds))
        case tuple() if isinstance(value, known):
            return
        case _:
            yield path or "something that is no object"


def _require_contained_data(graph: Path) -> None:
    try:
        model = onnx.load(graph, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelSupplyError(f"{graph} cannot be read ({error}), so the model is not used.") from error
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and not _lies_in(graph.parent, entry.value):
                raise ModelSupplyError(
                    f"{graph} takes weights from {entry.value!r}, which is no file beside it; "
                    "the model is not used."
                )


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """All of them, wherever they are: in nodes, their subgraphs, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _tensors(inner)


def _lies_in(folder: Path, name: str) -> bool:
    """A plain name, on every system: "a\\\\b" and "C:b" lead elsewhere on Windows, "../b" does everywhere."""
    plain = all(kind(name).name == name for kind in (PurePosixPath, PureWindowsPath))
    return plain and "\0" not in name and (folder / name).is_file()
