"""The process that compiles the graph of one bucket.

    python -m engine.embedding.npu.compiler MODEL_FOLDER TARGET_FOLDER BATCH SEQUENCE

A process of its own because QNN's compiler can crash or hang. It also makes the first run of what it
compiled, for the same reason. It leaves in the target folder what is named here; its exit status is 0
only if the graph passed the parity gate, else the last line it prints says why.
"""

import json
import os
import sys
import threading
from pathlib import Path

import onnx

from engine.embedding.npu.buckets import Bucket, NpuFault
from engine.embedding.npu.device import find_npu
from engine.embedding.npu.graph import build_graph
from engine.embedding.npu.parity import check, make_probes
from engine.embedding.npu.session import QnnSession, compile_context
from engine.errors import EngineError
from engine.models.encoders.bert import load_weights

CONTEXT = "context.onnx"
PROBES = "probes.npz"
REPORT = "report.json"


def main() -> None:
    model, target, batch, sequence = sys.argv[1:]
    bucket = Bucket(int(batch), int(sequence))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        compile_graph(build_graph(load_weights(Path(model)), bucket), bucket, Path(model), Path(target))
    except EngineError as error:
        sys.exit(" ".join(str(error).split()))


def compile_graph(graph: onnx.ModelProto, bucket: Bucket, model: Path, target: Path) -> None:
    """model: the folder whose tokenizer makes the probes."""
    search = find_npu()
    if search.npu is None:
        raise NpuFault(f"{search.reason}")
    graph_file = target / "graph.onnx"
    onnx.save(graph, graph_file)
    probes = make_probes(graph_file, bucket, model / "tokenizer.json")
    compile_context(graph_file, target / CONTEXT, search.npu)
    graph_file.unlink()
    worst = check(QnnSession(target / CONTEXT, bucket, search.npu), bucket, probes, thorough=True)
    probes.save(target / PROBES)
    metadata = {p.key: p.value for p in onnx.load(target / CONTEXT).metadata_props}
    report = {"lowest_cosine": worst, "compiled_context": metadata}
    (target / REPORT).write_text(json.dumps(report), encoding="utf-8")


def _end_with_parent() -> None:
    """The parent holds the other end of our standard input for as long as it wants us to work."""
    os.read(0, 1)  # not sys.stdin: its lock, held here, would abort the interpreter's own exit
    os._exit(1)


if __name__ == "__main__":
    main()
