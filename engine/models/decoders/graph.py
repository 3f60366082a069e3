"""Writes a decoder as the ONNX graph that onnxruntime-genai runs, in the form its own model builder gives it.

The operators, names and layouts are those of `onnxruntime_genai.models.builder -p int4 -e cpu`, version 0.18
(GroupQueryAttention with fused rotary positions and one packed query-key-value product, MatMulNBits).

Small models get its `prune_lm_head`: the head reads the last token only, which makes reading a prompt 40 %
faster for a model of 135M parameters, a fifth of them in the head. Speculation needs a head that reads all
tokens; of Phi-3-mini's parameters it is a fortieth.

A sliding window is an attribute of the attention operator. The window-sized cache that the builder configures
for Phi-3 (`sliding_window` in genai_config.json) crashes once a conversation is longer than the window.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.models.decoders.decoder import Decoder, Weights
from engine.models.decoders.external_data import ExternalData
from engine.models.decoders.quantise import BLOCK, Plane, Precision, quantise

MODEL_FILE = "model.onnx"
_MICROSOFT = "com.microsoft"


def write_graph(
    decoder: Decoder,
    weights: Weights,
    precision: Callable[[str], Precision],
    folder: Path,
    *,
    prune_head: bool,
) -> None:
    """Write model.onnx and model.onnx.data; holds one weight matrix in memory at a time.

    weights and precision take the names of Decoder.shape_of; precision is asked for those multiplied with.
    prune_head: logits for the last token read only.
    """
    with ExternalData(folder / f"{MODEL_FILE}.data") as data:
        graph = _GraphWriter(decoder, weights, precision, data, prune_head).write()
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 22), helper.make_opsetid(_MICROSOFT, 1)],
        ir_version=10,
        producer_name="npu-gateway",
    )
    onnx.save_model(model, folder / MODEL_FILE)


class _GraphWriter:
    def __init__(
        self,
        decoder: Decoder,
        weights: Weights,
        precision: Callable[[str], Precision],
        data: ExternalData,
        prune_head: bool,
    ) -> None:
        self.decoder = decoder
        self.weights = weights
        self.precision = precision
        self.data = data
        self.prune_head = prune_head
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.block_sums: dict[str, str] = {}

    def write(self) -> onnx.GraphProto:
        lengths = self._sequence_lengths()
        residual = self._embedding()
        update = ""
        for layer in range(self.decoder.layers):
            residual, update = self._layer(layer, residual, update, lengths)
        self._head(residual, update)
        self._rotary_caches()
        return helper.make_graph(
            self.nodes, "main_graph", self._inputs(), self._outputs(), initializer=self.initializers
        )

    # The network, from the tokens to the logits.

    def _embedding(self) -> str:
        self._store("model.embed_tokens.weight", self.weights("embedding"))
        name = "/model/embed_tokens/Gather"
        return self._node("Gather", ["model.embed_tokens.weight", "input_ids"], name)

    def _layer(self, layer: int, residual: str, update: str, lengths: list[str]) -> tuple[str, str]:
        """Returns the residual stream and the update that the next normalisation adds to it."""
        source, base = f"layers.{layer}.", f"/model/layers.{layer}"
        normed, residual = self._norm(f"{base}/input_layernorm", f"{source}attention_norm", residual, update)
        update = self._attention(layer, normed, lengths)
        normed, residual = self._norm(
            f"{base}/post_attention_layernorm", f"{source}mlp_norm", residual, update
        )
        return residual, self._mlp(layer, normed)

    def _attention(self, layer: int, normed: str, lengths: list[str]) -> str:
        base, decoder = f"/model/layers.{layer}/attn", self.decoder
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        packed = self._matmul(f"{base}/qkv_proj/MatMul", f"layers.{layer}.qkv", normed)
        attended = self._node(
            "GroupQueryAttention",
            [packed, "", "", *past, *lengths, "cos_cache", "sin_cache"],
            f"{base}/GroupQueryAttention",
            extra_outputs=[f"present.{layer}.key", f"present.{layer}.value"],
            domain=_MICROSOFT,
            num_heads=decoder.heads,
            kv_num_heads=decoder.kv_heads,
            scale=decoder.head_size**-0.5,
            local_window_size=decoder.attention_window or -1,
            do_rotary=1,
            rotary_interleaved=0,
        )
        return self._matmul(f"{base}/o_proj/MatMul", f"layers.{layer}.attention_output", attended)

    def _mlp(self, layer: int, normed: str) -> str:
        base, source = f"/model/layers.{layer}/mlp", f"layers.{layer}."
        gate = self._matmul(f"{base}/gate_proj/MatMul", f"{source}gate", normed)
        up = self._matmul(f"{base}/up_proj/MatMul", f"{source}up", normed)
        sigmoid = self._node("Sigmoid", [gate], f"{base}/act_fn/Sigmoid")
        activated = self._node("Mul", [gate, sigmoid], f"{base}/act_fn/Mul")
        gated = self._node("Mul", [activated, up], f"{base}/Mul")
        return self._matmul(f"{base}/down_proj/MatMul", f"{source}down", gated)

    def _head(self, residual: str, update: str) -> None:
        normed, _ = self._norm("/model/final_norm_layernorm", "final_norm", residual, update)
        if self.prune_head:
            normed = self._last(normed)
        self._matmul("/lm_head/MatMul", "head", normed, output="logits")

    def _last(self, normed: str) -> str:
        index = self._constant("/model/constants/INT64/-1", np.array(-1))
        axis = self._constant("/model/constants/INT64/[1]", np.array([1]))
        last = self._node("Gather", [normed, index], "/lm_head/prune/Gather", axis=1)
        return self._node("Unsqueeze", [last, axis], "/lm_head/prune/Unsqueeze")

    # What the attention operators share.

    def _rotary_caches(self) -> None:
        positions = np.arange(self.decoder.context_tokens, dtype=np.float32)
        angles = np.outer(positions, self.decoder.inverse_frequencies)
        self._store("cos_cache", np.cos(angles))
        self._store("sin_cache", np.sin(angles))

    def _sequence_lengths(self) -> list[str]:
        """Each row's last position, int32 [batch], and the padded length, an int32 scalar, off the mask."""
        base = "/model/attn_mask_reformat/attn_mask_subgraph"
        one, axis = (
            self._constant("/model/constants/INT64/1", np.array(1)),
            self._constant("/model/constants/INT64/axes", np.array([1])),
        )
        total = self._node("ReduceSum", ["attention_mask", axis], f"{base}/ReduceSum", keepdims=0)
        last = self._node("Sub", [total, one], f"{base}/Sub")
        shape = self._node("Shape", ["attention_mask"], f"{base}/Shape")
        padded = self._node("Gather", [shape, one], f"{base}/Gather", axis=0)
        return [
            self._node("Cast", [last], f"{base}/Sub/Cast", to=TensorProto.INT32),
            self._node("Cast", [padded], f"{base}/Gather/Cast", to=TensorProto.INT32),
        ]

    # Operators.

    def _norm(self, name: str, source: str, residual: str, update: str) -> tuple[str, str]:
        """RMS normalisation of residual + update, and the sum itself. No update before the first layer."""
        weight = f"{_dotted(name)}.weight"
        self._store(weight, self.weights(source))
        epsilon = self.decoder.norm_epsilon
        if not update:
            node = f"{name}/LayerNorm"
            attributes: dict[str, Any] = {"epsilon": epsilon, "axis": -1, "stash_type": 1}
            return self._node(
                "SimplifiedLayerNormalization", [residual, weight], node, **attributes
            ), residual
        normed = self._node(
            "SkipSimplifiedLayerNormalization",
            [residual, update, weight],
            f"{name}/SkipLayerNorm",
            extra_outputs=["", "", f"{name}/output_3"],
            domain=_MICROSOFT,
            epsilon=epsilon,
        )
        return normed, f"{name}/output_3"

    def _matmul(self, name: str, source: str, activations: str, output: str | None = None) -> str:
        """The product with a weight: one MatMulNBits in the usual case."""
        precision = self.precision(source)
        weight = quantise(self.weights(source), precision.form)
        terms = [
            (f"{name}_Q4" if i == 0 else f"{name}_Q4_{i}", plane) for i, plane in enumerate(weight.planes)
        ]
        alone = len(terms) == 1 and weight.offsets is None
        products = [
            self._matmul_nbits(term, plane, activations, precision.accuracy_level, output if alone else None)
            for term, plane in terms
        ]
        if weight.offsets is not None:
            self._store(f"{_dotted(name)}.offsets", weight.offsets.T)
            sums = self._block_sums(activations, len(weight.offsets.T))
            products.append(self._node("MatMul", [sums, f"{_dotted(name)}.offsets"], f"{name}/offsets"))
        return products[0] if alone else self._node("Add", products, f"{name}/Add", output=output)

    def _matmul_nbits(
        self, name: str, plane: Plane, activations: str, accuracy_level: int, output: str | None
    ) -> str:
        outputs, blocks = plane.scales.shape
        stored = f"{_dotted(name)}.weight"
        operands = [stored, f"{stored}_scales"]
        self._store(stored, plane.packed)
        self._store(f"{stored}_scales", plane.scales)
        if plane.zero != 8:  # the operator's own zero
            operands.append(f"{stored}_zero_points")
            level_pair = plane.zero | plane.zero << 4
            self._store(operands[-1], np.full((outputs, (blocks + 1) // 2), level_pair, np.uint8))
        return self._node(
            "MatMulNBits",
            [activations, *operands],
            name,
            output=output,
            domain=_MICROSOFT,
            K=blocks * BLOCK,
            N=outputs,
            bits=4,
            block_size=BLOCK,
            accuracy_level=accuracy_level,
        )

    def _block_sums(self, activations: str, blocks: int) -> str:
        """Sums of 32 neighbouring activations [.., blocks], to be multiplied with the offsets of blocks."""
        ones = f"block_sums.{blocks}"
        if ones not in (stored.name for stored in self.initializers):
            self._store(ones, np.repeat(np.eye(blocks, dtype=np.float32), BLOCK, axis=0))
        if activations not in self.block_sums:
            name = f"{activations}/block_sums"
            self.block_sums[activations] = self._node("MatMul", [activations, ones], name)
        return self.block_sums[activations]

    def _node(
        self,
        operator: str,
        inputs: list[str],
        name: str,
        *,
        output: str | None = None,
        extra_outputs: list[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        output = output or f"{name}/output_0"
        outputs = [output, *(extra_outputs or [])]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes))
        return output

    def _store(self, name: str, values: NDArray[Any]) -> None:
        self.initializers.append(self.data.add(name, values))

    def _constant(self, name: str, value: NDArray[np.int64]) -> str:
        self.initializers.append(onnx.numpy_helper.from_array(value, name))
        return name

    # The borders, as the runtime feeds them.

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            helper.make_tensor_value_info(
                "attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]
            ),
            *self._cache("past_key_values", "past_sequence_length"),
        ]

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        rows: int | str = 1 if self.prune_head else "sequence_length"
        logits: list[str | int | None] = ["batch_size", rows, self.decoder.vocabulary]
        return [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits),
            *self._cache("present", "total_sequence_length"),
        ]

    def _cache(self, prefix: str, length: str) -> list[onnx.ValueInfoProto]:
        shape: list[str | int | None] = ["batch_size", self.decoder.kv_heads, length, self.decoder.head_size]
        return [
            helper.make_tensor_value_info(f"{prefix}.{layer}.{part}", TensorProto.FLOAT, shape)
            for layer in range(self.decoder.layers)
            for part in ("key", "value")
        ]


def _dotted(name: str) -> str:
    """The name of an initializer that belongs to a node."""
    return name[1:].replace("/", ".")
