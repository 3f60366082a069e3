"""Tiny random models of each architecture and quantisation, imported and compared with plain numpy."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.models.decoders import quantise
from engine.models.decoders.convert import convert
from engine.models.progress import silent
from tests.engine.models.gguf_files import TinyGguf
from tests.engine.models.gguf_reference import ReferenceModel
from tests.engine.models.gguf_runtime import Runtime

PROMPT = [1, 200, 7, 42, 199, 12, 5, 180, 180, 33, 61, 190]
PHI3 = TinyGguf(architecture="phi3", kv_heads=4)
LLAMA = TinyGguf()
EXACT = ("Q8_0", "Q4_0", "Q4_1")
ROUNDED_TO_8_BITS = ("F32", "F16", "Q4_K", "Q6_K")


def imported(model: TinyGguf, folder: Path) -> tuple[Runtime, ReferenceModel]:
    file = model.write(folder / "tiny.gguf")
    target = folder / "imported"
    target.mkdir()
    convert(file, target, progress=silent)
    return Runtime(target), ReferenceModel(file)


@pytest.mark.parametrize("quantisation", EXACT)
@pytest.mark.parametrize("model", [LLAMA, PHI3], ids=lambda model: model.architecture)
def test_blocks_of_32_are_carried_over_without_loss(
    model: TinyGguf, quantisation: str, tmp_path: Path
) -> None:
    runtime, reference = imported(model.but(quantisation=quantisation), tmp_path)

    ours = runtime.next_logits(PROMPT)

    np.testing.assert_allclose(ours, reference.logits(PROMPT)[-1], atol=1e-3)


@pytest.mark.parametrize("quantisation", ROUNDED_TO_8_BITS)
@pytest.mark.parametrize("model", [LLAMA, PHI3], ids=lambda model: model.architecture)
def test_other_quantisations_lose_little(model: TinyGguf, quantisation: str, tmp_path: Path) -> None:
    runtime, reference = imported(
        model.but(quantisation=quantisation, head_quantisation=quantisation), tmp_path
    )

    ours, expected = runtime.next_logits(PROMPT), reference.logits(PROMPT)[-1]

    assert np.std(ours - expected) < 0.1 * np.std(expected)


@pytest.mark.parametrize("window", [None, 16], ids=["no window", "window of 16"])
@pytest.mark.parametrize("model", [LLAMA, PHI3], ids=lambda model: model.architecture)
def test_each_token_of_a_long_text_is_foreseen_as_by_a_float32_forward_pass(
    model: TinyGguf, window: int | None, tmp_path: Path
) -> None:
    runtime, reference = imported(model.but(window=window), tmp_path)
    tokens = np.random.default_rng(0).integers(3, 256, 100).tolist()

    ours = runtime.logits_token_by_token(tokens)

    np.testing.assert_allclose(ours, reference.logits(tokens), atol=1e-3)


@pytest.mark.parametrize("window", [None, 16], ids=["no window", "window of 16"])
def test_a_long_prompt_read_at_once_is_read_as_by_a_float32_forward_pass(
    window: int | None, tmp_path: Path
) -> None:
    runtime, reference = imported(PHI3.but(window=window), tmp_path)
    tokens = np.random.default_rng(0).integers(3, 256, 100).tolist()

    ours = runtime.next_logits(tokens)

    np.testing.assert_allclose(ours, reference.logits(tokens)[-1], atol=1e-3)


def test_a_window_hides_what_lies_before_it(tmp_path: Path) -> None:
    """If the window had no effect, the comparison past it would prove nothing."""
    _, windowed = imported(PHI3.but(window=16), tmp_path)
    tokens = PROMPT * 4
    changed = [5, *tokens[1:]]

    seen, unseen = windowed.logits(tokens)[-1], windowed.logits(changed)[-1]

    assert np.abs(seen - unseen).max() == 0


def test_a_sliding_window_never_becomes_a_window_sized_cache(tmp_path: Path) -> None:
    imported(PHI3.but(window=16), tmp_path)

    config = json.loads((tmp_path / "imported" / "genai_config.json").read_text(encoding="utf-8"))

    assert "sliding_window" not in config["model"]["decoder"]


def test_a_large_model_gets_the_operators_of_the_published_phi3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "SMALL_MODEL_PARAMETERS", 0)
    imported(PHI3.but(layers=1, window=16), tmp_path)

    graph = onnx.load(tmp_path / "imported" / "model.onnx", load_external_data=False).graph

    nodes = [(node.op_type, _attributes(node)) for node in graph.node]
    products = [attributes for operator, attributes in nodes if operator == "MatMulNBits"]
    (attention,) = (attributes for operator, attributes in nodes if operator == "GroupQueryAttention")
    assert [(product["N"], product["K"]) for product in products] == [
        (3 * 256, 256),
        (256, 256),
        (512, 256),
        (512, 256),
        (256, 512),
        (352, 256),
    ]
    assert all((p["bits"], p["block_size"], p["accuracy_level"]) == (4, 32, 4) for p in products)
    assert attention == {
        "num_heads": 4,
        "kv_num_heads": 4,
        "scale": 0.125,
        "local_window_size": 16,
        "do_rotary": 1,
        "rotary_interleaved": 0,
    }
    assert not any(operator == "MatMul" for operator, _ in nodes)


def test_a_large_model_keeps_the_best_tokens_through_4_bits_and_int8_activations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "SMALL_MODEL_PARAMETERS", 0)
    runtime, reference = imported(PHI3.but(quantisation="Q4_0", head_quantisation="Q4_0"), tmp_path)

    ours, expected = runtime.next_logits(PROMPT), reference.logits(PROMPT)[-1]

    assert np.std(ours - expected) < 0.1 * np.std(expected)
    assert ours.argmax() == expected.argmax()


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
