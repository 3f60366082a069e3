"""A model's files can name no native library, and nothing outside the model's folder."""

import hashlib
import json
import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

from engine.chat.runtimes.genai import GenaiRuntime
from engine.errors import ModelSupplyError
from engine.models.containment import require_contained
from engine.models.encoders.bert import load_weights
from engine.models.registry import find
from tests.engine.models.onnx_files import tensor_in, with_tensor

GRAPH = "phi3-mini-4k-instruct-cpu-int4-rtn-block-32-acc-level-4.onnx"
PHI_3: dict[str, Any] = {
    "model": {
        "bos_token_id": 1,
        "context_length": 4096,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            "filename": GRAPH,
            "head_size": 96,
            "hidden_size": 3072,
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
        },
        "eos_token_id": [32000, 32001, 32007],
        "pad_token_id": 32000,
        "type": "phi3",
        "vocab_size": 32064,
    },
    "search": {
        "diversity_penalty": 0.0,
        "do_sample": False,
        "early_stopping": True,
        "length_penalty": 1.0,
        "max_length": 4096,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as it should be, next to a file that is not its own."""
    (tmp_path / "secret.bin").write_bytes(b"1234")
    model = tmp_path / "model"
    model.mkdir()
    (model / f"{GRAPH}.data").write_bytes(b"1234")
    (model / GRAPH).write_bytes(with_tensor(tensor_in(f"{GRAPH}.data")))
    (model / "genai_config.json").write_text(json.dumps(PHI_3, indent=4))
    return model


def refusal(folder: Path) -> str:
    """By the check itself, and by what loads the model."""
    with pytest.raises(ModelSupplyError) as refused:
        require_contained(folder)
    with pytest.raises(ModelSupplyError) as refused_at_load:
        GenaiRuntime(folder, threads=1, context_tokens=None, kv_bytes=1 << 30)
    assert str(refused.value) == str(refused_at_load.value)
    return str(refused.value)


def test_the_published_phi_3_is_accepted(folder: Path) -> None:
    source = next(iter(find("phi-3-mini-4k-instruct").sources))
    pinned = next(file.sha256 for file in source.files if file.name == "genai_config.json")
    assert hashlib.sha256((folder / "genai_config.json").read_bytes()).hexdigest() == pinned

    require_contained(folder)


def test_a_model_that_was_imported_here_is_accepted(smollm2_folder: Path) -> None:
    require_contained(smollm2_folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.decoder.session_options.custom_ops_library", "evil.so"),
        ("model.decoder.session_options.enable_profiling", "/home/user/.bashrc"),
        ("model.decoder.session_options.session.model_external_initializers_file_folder_path", "/etc"),
        ("model.decoder.session_options.ep.share_ep_contexts", "1"),
        ("model.decoder.session_options.log_id", {"custom_ops_library": "evil.so"}),
        ("model.decoder.run_options", {"x": "y"}),
        ("model.decoder.pipeline", [{"embed": {"session_options": {"custom_ops_library": "evil.so"}}}]),
        ("model.encoder", {"session_options": {"custom_ops_library": "evil.so"}}),
        ("model.draft", {"filename": "other.onnx"}),
        ("model.tokenizer_dir", "/etc"),
        ("search.chat_template", "text"),
        ("engine", {"dynamic_batching": {}}),
    ],
)
def test_settings_beyond_those_of_a_decoder_are_refused(folder: Path, path: str, value: object) -> None:
    config = deepcopy(PHI_3)
    place, key = config, path
    while key.partition(".")[0] in place:
        name, _, rest = key.partition(".")
        if not rest:
            break
        place, key = place[name], rest
    place[key] = value
    (folder / "genai_config.json").write_text(json.dumps(config))

    message = refusal(folder)

    assert path in message
    assert "which a model may not" in message


@pytest.mark.parametrize(
    "provider",
    [
        {"qnn": {"backend_path": "evil.dll"}},
        {"cpu": {"library_path": "evil.so"}},
        {"EvilExecutionProvider": {}},
    ],
)
def test_other_providers_than_the_cpu_are_refused(folder: Path, provider: dict[str, Any]) -> None:
    config = deepcopy(PHI_3)
    config["model"]["decoder"]["session_options"]["provider_options"] = [provider]
    (folder / "genai_config.json").write_text(json.dumps(config))

    assert "is for other devices than the CPU" in refusal(folder)


def test_a_key_that_is_given_twice_is_refused(folder: Path) -> None:
    """The runtime heeds the first one too."""
    twice = json.dumps(PHI_3).replace(
        '"session_options": {',
        '"session_options": {"custom_ops_library": "evil.so"}, "session_options": {',
        1,
    )
    (folder / "genai_config.json").write_text(twice)

    assert "a key is given twice" in refusal(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"model": 1}', "{}", "[" * 100_000, "\ufeff{}", " " * (2 << 20)],
    ids=lambda text: text[:12],
)
def test_a_configuration_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "genai_config.json").write_text(text, encoding="utf-8")

    assert "genai_config.json" in refusal(folder)


OUTSIDE = [
    "../secret.bin",
    "/etc/passwd",
    "sub/../../secret.bin",
    "..\\secret.bin",
    "C:\\Windows\\win.ini",
    "C:secret.bin",
    "\\\\server\\share\\x",
    "*/_ORT_MEM_ADDR_/*",
    "",
    "..",
    "missing.bin",
    "a\0b",
]


@pytest.mark.parametrize("location", OUTSIDE)
def test_a_graph_outside_the_folder_is_refused(folder: Path, location: str) -> None:
    config = deepcopy(PHI_3)
    config["model"]["decoder"]["filename"] = location
    (folder / "genai_config.json").write_text(json.dumps(config))

    assert "which is no file beside it" in refusal(folder)


@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_outside_the_folder_are_refused(folder: Path, location: str) -> None:
    (folder / GRAPH).write_bytes(with_tensor(tensor_in(location)))

    assert "which is no file beside it" in refusal(folder)


def _attribute(value: TensorProto) -> AttributeProto:
    return AttributeProto(name="value", type=AttributeProto.TENSOR, t=value)


def _node(*attributes: AttributeProto) -> NodeProto:
    return NodeProto(op_type="Constant", attribute=attributes)


ELSEWHERE = tensor_in("../secret.bin")


@pytest.mark.parametrize(
    "model",
    [
        ModelProto(graph=GraphProto(node=[_node(_attribute(ELSEWHERE))])),
        ModelProto(
            graph=GraphProto(
                node=[_node(AttributeProto(name="body", g=GraphProto(node=[_node(_attribute(ELSEWHERE))])))]
            )
        ),
        ModelProto(functions=[FunctionProto(node=[_node(_attribute(ELSEWHERE))])]),
        ModelProto(graph=GraphProto(sparse_initializer=[SparseTensorProto(values=ELSEWHERE)])),
    ],
    ids=["attribute", "subgraph", "function", "sparse"],
)
def test_weights_are_found_wherever_a_graph_has_them(folder: Path, model: ModelProto) -> None:
    (folder / GRAPH).write_bytes(model.SerializeToString())

    assert "takes weights from '../secret.bin'" in refusal(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="only administrators make links on Windows")
@pytest.mark.parametrize("name", [f"{GRAPH}.data", GRAPH, "sub"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.symlink(folder.parent, folder / name)

    assert "leads out of the model's folder" in refusal(folder)


def test_a_damaged_graph_is_refused(folder: Path) -> None:
    (folder / GRAPH).write_bytes(b"\xff" * 100)

    assert "cannot be read" in refusal(folder)


def test_an_encoder_may_not_take_weights_from_elsewhere_either(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(with_tensor(tensor_in("../secret.bin")))

    with pytest.raises(ModelSupplyError, match="takes weights from"):
        load_weights(tmp_path)
