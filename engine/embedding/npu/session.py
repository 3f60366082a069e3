"""Sessions on the NPU, and nowhere else.

By default onnxruntime runs on the CPU whatever a provider cannot take, and still lists that provider among
the session's own: a graph with a dynamic shape "works" without the NPU doing anything. Hence two settings:
`disable_cpu_ep_fallback` makes session creation fail instead, and the recorded assignment of every operator
is looked at before the session is used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.embedding.npu.buckets import Bucket, NpuFault, TokenIds, pad
from engine.embedding.npu.device import EP_NAME, Npu

COMPILE_OPTIONS = {
    "enable_htp_fp16_precision": "1",
    # 3 takes longest to compile and runs fastest; on the emulator 2.5 s against 1.6 s for mode 2.
    "htp_graph_finalization_optimization_mode": "3",
}
RUN_CONFIG = {
    # Full clock while a batch runs, and back: the gateway is idle most of the time, often on battery.
    "qnn.htp_perf_mode": "burst",
    "qnn.htp_perf_mode_post_run": "default",
    "qnn.rpc_control_latency": "100",
}


class BucketSession(Protocol):
    """One compiled graph, ready to run."""

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Vectors [texts, hidden] of at most as many texts as the bucket holds. Raises NpuFault."""


class QnnSession:
    """A BucketSession on a compiled context: the small ONNX file that names the binary beside it."""

    def __init__(self, context: Path, bucket: Bucket, npu: Npu) -> None:
        self._bucket = bucket
        self._run_options = ort.RunOptions()
        for key, value in RUN_CONFIG.items():
            self._run_options.add_run_config_entry(key, value)
        try:
            self._session = ort.InferenceSession(context, _session_options(npu))
            _require_npu(self._session)
        except Exception as error:
            raise NpuFault(f"The NPU cannot load its {bucket} graph: {error}", bucket=bucket) from error

    def run(self, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        input_ids, attention_bias = pad(token_ids, self._bucket)
        inputs = {"input_ids": input_ids, "attention_bias": attention_bias}
        try:
            (vectors,) = self._session.run(None, inputs, self._run_options)
        except Exception as error:
            raise NpuFault(
                f"The NPU failed on its {self._bucket} graph: {error}", bucket=self._bucket
            ) from error
        return np.asarray(vectors[: len(token_ids)], np.float32)


def compile_context(graph: Path, context: Path, npu: Npu) -> None:
    """Compile an ONNX graph into `context` and a binary beside it. Neither may exist.

    Raises NpuFault when the NPU cannot run the whole graph.
    """
    options = _session_options(npu)
    # The extended optimisations make operators of onnxruntime's own, which QNN does not know.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("ep.context_enable", "1")
    options.add_session_config_entry("ep.context_embed_mode", "0")
    options.add_session_config_entry("ep.context_file_path", str(context))
    try:
        _require_npu(ort.InferenceSession(graph, options))
    except Exception as error:
        raise NpuFault(f"The graph cannot be compiled for the NPU: {error}") from error


def _session_options(npu: Npu) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # below it, every load warns about features of other platforms
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_provider_for_devices([npu.handle], {**COMPILE_OPTIONS, **npu.options})
    return options


def _require_npu(session: ort.InferenceSession) -> None:
    granted = {subgraph.ep_name for subgraph in session.get_provider_graph_assignment_info()}
    if granted != {EP_NAME}:
        raise NpuFault(f"operators were assigned to {', '.join(sorted(granted)) or 'nothing'}.")
