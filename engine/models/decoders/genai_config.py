"""Writes genai_config.json, which tells onnxruntime-genai how to run the model beside it.

Keys: https://onnxruntime.ai/docs/genai/reference/config.html, and what the model builder of 0.18 writes.
"""

import json
from pathlib import Path

from engine.models.containment import CONFIG
from engine.models.decoders.decoder import Decoder
from engine.models.gguf.special_tokens import SpecialTokens


def write_genai_config(decoder: Decoder, tokens: SpecialTokens, model_file: str, folder: Path) -> None:
    config = {
        "model": {
            "type": decoder.family,
            "vocab_size": decoder.vocabulary,
            "context_length": decoder.context_tokens,
            "bos_token_id": tokens.bos,
            "eos_token_id": list(tokens.ends),
            "pad_token_id": tokens.padding,
            "decoder": _decoder(decoder, model_file),
        },
        "search": _search(decoder),
    }
    text = json.dumps(config, indent=4)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _decoder(decoder: Decoder, model_file: str) -> dict[str, object]:
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": model_file,
        "head_size": decoder.head_size,
        "hidden_size": decoder.hidden,
        "num_attention_heads": decoder.heads,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.kv_heads,
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
    }


def _search(decoder: Decoder) -> dict[str, object]:
    """Greedy unless the caller says otherwise. The attention operator needs one shared key-value buffer."""
    return {
        "diversity_penalty": 0.0,
        "do_sample": False,
        "early_stopping": True,
        "length_penalty": 1.0,
        "max_length": decoder.context_tokens,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    }
