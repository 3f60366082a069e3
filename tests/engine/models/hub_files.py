"""What the local hub gives in the tests of fetching, and a registry that knows it."""

from dataclasses import replace
from hashlib import sha256

from engine.models import registry
from engine.models.registry import HubSource, SourceFile
from tests.engine.models.hub_server import COMMIT
from tests.engine.models.onnx_files import onnx_file

REPO = "BAAI/bge-small-en-v1.5"
# huggingface_hub writes chunks of 10 MiB to the disk: the file has two whole ones and a part.
CHUNK_BYTES = 10 << 20
WEIGHTS = onnx_file(2 * CHUNK_BYTES + 4321)
FILES = {
    "README.md": b"not asked for",
    "config.json": b'{"hidden_size": 384}',
    "onnx/model.onnx": WEIGHTS,
    "tokenizer.json": b'{"version": "1.0"}',
}


def pin() -> None:
    """Let this process expect these files instead of the published ones."""
    spec = registry.find("bge-small-en-v1.5")
    (published,) = (source for source in spec.sources if isinstance(source, HubSource))
    files = tuple(_pinned(file.path, file.name) for file in published.files)
    registry.MODELS = (replace(spec, sources=(HubSource(REPO, COMMIT, files),)),)


def _pinned(path: str, name: str) -> SourceFile:
    content = FILES[path]
    return SourceFile(path, name, sha256(content).hexdigest(), len(content))
