"""One function per way to compute the same embeddings on the CPU.

Each takes the installed model's folder, a folder in the hub's form with the same weights in float32, and how
many cores to use; loads what it needs and returns a function from texts to unit vectors float32 [texts, 384].
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by onnxruntime at its import

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.float32_model import torch_state
from engine.embedding.tokenizer import TextTokenizer
from engine.models.encoders.bert import load_weights

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]


def npu_gateway(folder: Path, hub_folder: Path, threads: int) -> Embed:
    """The embedding worker's code: one core a lane, batches of 512 padded tokens."""
    from engine.embedding.cpu.embedder import CpuEmbedder
    from engine.embedding.cpu.graph import derived_graph

    embedder = CpuEmbedder(derived_graph(folder), threads=threads, lanes=threads)
    pool = ThreadPoolExecutor(threads)
    return _by_length(folder, 512, lambda batches: pool.map(embedder.run, batches))


def onnxruntime_float32(folder: Path, hub_folder: Path, threads: int) -> Embed:
    return _plain_onnxruntime(folder, hub_folder / "model.onnx", threads)


def onnxruntime_int8(folder: Path, hub_folder: Path, threads: int) -> Embed:
    return _plain_onnxruntime(folder, folder / "model.onnx", threads)


def _plain_onnxruntime(folder: Path, file: Path, threads: int) -> Embed:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(batch: Sequence[NDArray[np.int32]]) -> Vectors:
        ids, mask = _padded(batch)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = session.run(["last_hidden_state"], feeds)
        return _unit(np.asarray(hidden)[:, 0])

    return _by_length(folder, 4096, lambda batches: map(run, batches))


def fastembed(folder: Path, hub_folder: Path, threads: int) -> Embed:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local/bge-small-en-v1.5"
    TextEmbedding.add_custom_model(
        name,
        PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding(name, threads=threads, specific_model_path=str(hub_folder))
    return lambda texts: np.stack(list(model.embed(texts))).astype(np.float32)


def sentence_transformers_float32(folder: Path, hub_folder: Path, threads: int) -> Embed:
    return _sentence_transformers(folder, hub_folder, "float32", threads)


def sentence_transformers_bfloat16(folder: Path, hub_folder: Path, threads: int) -> Embed:
    return _sentence_transformers(folder, hub_folder, "bfloat16", threads)


def _sentence_transformers(folder: Path, hub_folder: Path, dtype: str, threads: int) -> Embed:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    target = hub_folder / f"torch-{dtype}"
    _torch_model(folder, dtype, threads).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (target / name).write_bytes((hub_folder / name).read_bytes())
    encoder = modules.Transformer(
        str(target), model_kwargs={"dtype": getattr(torch, dtype)}, max_seq_length=512
    )
    model = SentenceTransformer(
        modules=[encoder, modules.Pooling(384, "cls"), modules.Normalize()], device="cpu"
    )
    return lambda texts: model.encode(list(texts), convert_to_tensor=True).float().numpy()


def torch_bfloat16(folder: Path, hub_folder: Path, threads: int) -> Embed:
    """What torch can do at best: sorted by length, batches of 4,096 tokens instead of 32 texts."""
    import torch

    model = _torch_model(folder, "bfloat16", threads)

    def run(batch: Sequence[NDArray[np.int32]]) -> Vectors:
        ids, mask = (torch.from_numpy(array) for array in _padded(batch))
        with torch.inference_mode():
            return _unit(model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float().numpy())

    return _by_length(folder, 4096, lambda batches: map(run, batches))


def _torch_model(folder: Path, dtype: str, threads: int):  # type: ignore[no-untyped-def]
    import torch
    from transformers import BertConfig, BertModel

    from benchmarks.peers.float32_model import CONFIG

    torch.set_num_threads(threads)
    model = BertModel(BertConfig(**CONFIG), add_pooling_layer=False)
    state = {name: torch.from_numpy(array) for name, array in torch_state(load_weights(folder)).items()}
    model.load_state_dict(state)
    return model.to(getattr(torch, dtype)).eval()


def _by_length(
    folder: Path, batch_tokens: int, run: Callable[[list[list[NDArray[np.int32]]]], Iterator[Vectors]]
) -> Embed:
    """Tokenise, sort by length, cut into batches of so many padded tokens, put back in order."""
    tokenizer = TextTokenizer.load(folder, 512)

    def embed(texts: Sequence[str]) -> Vectors:
        ids = tokenizer.encode_batch(texts, on_overflow="truncate").ids
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        batches: list[list[NDArray[np.int32]]] = []
        for i in order:
            if batches and len(batches[-1][0]) * (len(batches[-1]) + 1) <= batch_tokens:
                batches[-1].append(ids[i])
            else:
                batches.append([ids[i]])
        vectors = np.empty((len(ids), 384), dtype=np.float32)
        vectors[order] = np.concatenate(list(run(batches)))
        return vectors

    return embed


def _padded(batch: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.zeros((len(batch), max(map(len, batch))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
