"""What `npu-gateway doctor` finds: each check in made-up situations, and the command on real homes."""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

import pytest
from packaging.requirements import Requirement

from engine import __version__
from engine.daemon import Endpoint
from engine.doctor import Finding, gateway, home, npu, software
from engine.embedding.devices.costs import Cost
from engine.embedding.devices.npu_probe import NpuProbe, probe_npu
from engine.errors import BadInput
from engine.models.files import StoredFile
from engine.models.store import Leftover, Manifest, ModelStore
from engine.settings import DeviceChoice, Home
from engine.types import Health, MemoryStatus, ModelStatus, NpuStatus, QueueStatus
from tests.engine.cli.commands import environment, npu_gateway

NONE = NpuStatus(available=False, emulated=False, name=None, reason="No NPU was found.")
HEXAGON = NpuStatus(available=True, emulated=False, name="Hexagon", reason=None)
EMULATOR = NpuStatus(available=True, emulated=True, name="HTP emulator", reason=None)
VERSIONS = {"onnxruntime": "1.32.0", "onnxruntime_qnn": "2.7.0"}
ENDPOINT = Endpoint(
    url="http://127.0.0.1:8000",
    token="secret",
    pid=7,
    version=__version__,
    api=1,
    instance="i",
    auto_started=True,
)


def verdict(finding: Finding) -> tuple[str, bool]:
    """Its state, and whether it says what to do."""
    return finding.state, finding.what_to_do is not None


def test_x86_python_on_an_arm_machine_fails_and_says_which_python_to_get() -> None:
    found = software.check_architecture("x86-64", "ARM64", "win32")

    assert found.state == "fail"
    assert str(found.what_to_do).startswith("Install ARM64 Python (https://www.python.org/downloads/windows/")


def test_python_built_for_the_machine_is_fine() -> None:
    assert verdict(software.check_architecture("ARM64", "ARM64", "win32")) == ("ok", False)


def test_this_python_is_built_for_this_machine() -> None:
    python, machine = software.architectures()

    assert python == machine


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 10), ("fail", True)),
        ((3, 11), ("ok", False)),
        ((3, 14), ("ok", False)),
        ((3, 15), ("warn", True)),
    ],
)
def test_the_versions_of_python_that_are_supported(
    version: tuple[int, int], expected: tuple[str, bool]
) -> None:
    assert verdict(software.check_python(version)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [("2.7.0", ("ok", False)), ("1.24.4", ("fail", True)), (None, ("fail", True))],
)
def test_a_runtime_must_be_there_in_a_version_that_fits(
    found: str | None, expected: tuple[str, bool]
) -> None:
    requirement = Requirement("onnxruntime-qnn>=2.7")

    assert verdict(software.check_runtime("onnxruntime-qnn", requirement, found)) == expected


def test_a_runtime_that_this_platform_does_not_have_is_not_missed() -> None:
    requirement = Requirement("onnxruntime-qnn>=2.7; sys_platform == 'plan9'")

    assert verdict(software.check_runtime("onnxruntime-qnn", requirement, None)) == ("ok", False)


def test_a_runtime_that_an_extra_brings_is_not_missed_and_the_extra_is_named() -> None:
    requirement = Requirement("onnxruntime-qnn>=2.7; extra == 'npu'")

    found = software.check_runtime("onnxruntime-qnn", requirement, None)

    assert verdict(found) == ("ok", False)
    assert '"npu-gateway[npu]"' in found.what


def test_a_runtime_that_an_extra_brought_must_fit() -> None:
    requirement = Requirement("onnxruntime-qnn>=2.7; extra == 'npu'")

    assert verdict(software.check_runtime("onnxruntime-qnn", requirement, "1.24.4")) == ("fail", True)


def test_the_package_states_what_it_needs_of_each_runtime() -> None:
    assert set(software.runtime_requirements()) == set(software.RUNTIMES)


@pytest.mark.parametrize(
    ("module", "intruder"),
    [
        ("onnxruntime", "onnxruntime-gpu"),
        ("onnxruntime", "onnxruntime-directml"),
        ("onnxruntime", "onnxruntime_qnn"),
        ("onnxruntime_genai", "onnxruntime-genai-cuda"),
    ],
)
def test_a_second_package_with_the_same_module_fails_and_is_named(module: str, intruder: str) -> None:
    providers = {"onnxruntime": ["onnxruntime"], "onnxruntime_genai": ["onnxruntime-genai"]}
    providers[module].append(intruder)

    found = software.check_conflicts(providers)

    assert found.state == "fail"
    assert f"uninstall -y {intruder.replace('_', '-')};" in str(found.what_to_do)


def test_the_packages_that_belong_together_do_not_conflict() -> None:
    providers = {"onnxruntime": ["onnxruntime", "onnxruntime"], "onnxruntime_qnn": ["onnxruntime-qnn"]}

    assert verdict(software.check_conflicts(providers)) == ("ok", False)


@pytest.mark.parametrize(
    ("probe", "expected", "choice", "state"),
    [
        (NpuProbe(HEXAGON), True, "auto", ("ok", False)),
        (NpuProbe(EMULATOR), False, "auto", ("warn", True)),
        (NpuProbe(NONE), False, "auto", ("ok", False)),
        (NpuProbe(NONE), True, "auto", ("warn", True)),
        (NpuProbe(NONE), False, "npu", ("warn", True)),
        (NpuProbe(NONE, failure="The search crashed."), True, "auto", ("fail", True)),
    ],
)
def test_a_missing_npu_matters_only_where_one_is_expected(
    probe: NpuProbe, expected: bool, choice: DeviceChoice, state: tuple[str, bool]
) -> None:
    assert verdict(npu.check_npu(probe, expected=expected, choice=choice)) == state


def test_a_driver_that_crashes_the_search_is_reported_not_passed_on() -> None:
    crash = [sys.executable, "-c", "import sys; print('boom', file=sys.stderr); sys.exit(9)"]

    assert probe_npu(crash).failure == "The search for an NPU ended with status 0x9: boom"


def test_a_driver_that_hangs_is_given_up_on() -> None:
    hang = [sys.executable, "-c", "input()" if sys.platform == "win32" else "import signal; signal.pause()"]

    assert probe_npu(hang, timeout_seconds=0.5).failure == "The search for an NPU did not end within 0.5 s."


def test_what_a_driver_prints_does_not_disturb_the_answer() -> None:
    answer = json.dumps({"status": vars(HEXAGON), "identity": "hexagon 73"})
    chatty = [sys.executable, "-c", f"print('QNN: hello'); print({answer!r})"]

    assert probe_npu(chatty) == NpuProbe(HEXAGON, "hexagon 73")


@pytest.mark.parametrize(("value", "state"), [(None, "ok"), ("", "ok"), ("0", "ok"), ("1", "warn")])
def test_emulation_is_pointed_out(value: str | None, state: str) -> None:
    assert npu.check_emulation(value).state == state


def context(bucket: str | None, versions: Mapping[str, str] = VERSIONS) -> npu.StoredContext:
    return npu.StoredContext(f"bge-{bucket}", bucket, 67_000_000, versions)


def test_compiled_graphs_are_listed_with_their_size() -> None:
    found = npu.check_contexts([context("1x128"), context("1x32")], VERSIONS)

    assert found == Finding("compiled graphs", "ok", "1x32, 1x128, 134.0 MB.")


def test_graphs_of_another_version_are_told_apart() -> None:
    old = context("1x64", VERSIONS | {"onnxruntime_qnn": "2.6.0"})

    found = npu.check_contexts([context("1x32"), old], VERSIONS)

    assert found.state == "ok"
    assert found.what.startswith("1x32, ")
    assert "remade by the next gateway: 1x64, of onnxruntime 1.32.0, onnxruntime_qnn 2.6.0" in found.what


def write_context(folder: Path, content: bytes) -> None:
    """As the gateway stores it: a file and a description with its hash."""
    folder.mkdir(parents=True)
    (folder / "context.onnx").write_bytes(content)
    digest = StoredFile.of(folder / "context.onnx", folder).sha256
    described = {"key": VERSIONS | {"bucket": "1x32"}, "files": {"context.onnx": digest}}
    (folder / "context.json").write_text(json.dumps(described), encoding="utf-8")


def test_a_graph_with_a_changed_byte_is_found_by_reading_it(tmp_path: Path) -> None:
    write_context(tmp_path / "bge-1x32-0", b"compiled")
    (tmp_path / "bge-1x32-0" / "context.onnx").write_bytes(b"compilef")

    seen = npu.check_contexts(npu.stored_contexts(tmp_path, verify=False), VERSIONS)
    read = npu.check_contexts(npu.stored_contexts(tmp_path, verify=True), VERSIONS)

    assert (verdict(seen), verdict(read)) == (("ok", False), ("warn", True))


@pytest.mark.parametrize("lost", ["context.onnx", "context.json"])
def test_a_graph_with_a_lost_file_is_damaged(tmp_path: Path, lost: str) -> None:
    write_context(tmp_path / "bge-1x32-0", b"compiled")
    (tmp_path / "bge-1x32-0" / lost).unlink()

    found = npu.check_contexts(npu.stored_contexts(tmp_path, verify=False), VERSIONS)

    assert found.what == "Damaged: bge-1x32-0."


def test_no_compiled_graphs_are_no_fault(tmp_path: Path) -> None:
    assert verdict(npu.check_contexts(npu.stored_contexts(tmp_path / "no", verify=True), VERSIONS)) == (
        "ok",
        False,
    )


def test_an_npu_without_measured_costs_is_pointed_out() -> None:
    assert verdict(npu.check_calibration(HEXAGON, "auto", {})) == ("warn", True)


def test_the_calibration_names_the_lengths_that_the_npu_is_faster_for() -> None:
    fast, slow = Cost(0.002, 0.001), Cost(0.008, 0.004)

    found = npu.check_calibration(
        HEXAGON, "auto", {"cpu": {32: fast, 64: slow, 128: slow}, "npu": {32: slow, 64: fast}}
    )

    assert found.state == "ok"
    assert found.what.endswith("2 text lengths; the NPU is faster for one text of (tokens): 64.")


@pytest.mark.parametrize(("status", "choice"), [(NONE, "auto"), (HEXAGON, "cpu"), (HEXAGON, "npu")])
def test_without_a_choice_of_devices_no_calibration_is_missed(
    status: NpuStatus, choice: DeviceChoice
) -> None:
    assert verdict(npu.check_calibration(status, choice, {})) == ("ok", False)


def test_a_home_inside_appdata_is_pointed_out() -> None:
    inside = home.check_place(PureWindowsPath(r"C:\Users\ann\AppData\Roaming\npu"))
    beside = home.check_place(PureWindowsPath(r"C:\Users\ann\.npu-gateway"))

    assert (verdict(inside), verdict(beside)) == (("warn", True), ("ok", False))


def test_a_home_that_cannot_be_written_to_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)

    found = home.check_writable(tmp_path / "not" / "made" / "yet")

    assert verdict(found) == ("fail", True)
    assert found.what == f"{tmp_path} cannot be written to: Permission denied."


def test_checking_a_home_that_does_not_exist_does_not_make_it(tmp_path: Path) -> None:
    assert home.check_writable(tmp_path / "home").state == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free_bytes", "expected"), [(10**8, ("warn", True)), (10**11, ("ok", False))])
def test_little_free_disk_is_pointed_out(free_bytes: int, expected: tuple[str, bool]) -> None:
    assert verdict(home.check_disk(free_bytes)) == expected


def test_a_configuration_that_cannot_be_used_fails_with_the_reason(tmp_path: Path) -> None:
    found = home.check_config(tmp_path / "config.toml", BadInput("port must be a whole number."))

    assert found == Finding(
        "configuration", "fail", "port must be a whole number.", f"Edit {tmp_path / 'config.toml'}."
    )


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Holds the model "tiny"."""
    store = ModelStore(tmp_path / "models")
    with store.staging("tiny") as staging:
        content = staging.folder / "content"
        content.mkdir(parents=True)
        (content / "model.onnx").write_bytes(b"12345")
        files = (StoredFile.of(content / "model.onnx", content),)
        staging.publish(content, Manifest("tiny", "chat", "abc", 512, None, "gguf:tiny.gguf", files))
    return store


def test_a_model_with_a_changed_byte_is_found_by_reading_it(store: ModelStore) -> None:
    (store.require("tiny").folder / "model.onnx").write_bytes(b"12340")

    assert home.check_model(store, "tiny", verify=False).state == "ok"
    assert home.check_model(store, "tiny", verify=True) == Finding(
        "model tiny",
        "fail",
        "These files are not what was installed: model.onnx.",
        "Run: npu-gateway rm tiny; then: npu-gateway import FILE.gguf --id tiny",
    )


def test_an_intact_model_is_verified(store: ModelStore) -> None:
    assert home.check_model(store, "tiny", verify=True) == Finding(
        "model tiny", "ok", "chat, 5 bytes, gguf:tiny.gguf, every byte verified"
    )


def test_leftovers_name_the_command_that_completes_them() -> None:
    broken = home.check_leftover(Leftover("bge-small-en-v1.5", "broken", 5))
    unfinished = home.check_leftover(Leftover("phi-3-mini-4k-instruct", "unfinished", 5))

    assert (broken.state, broken.what_to_do) == ("fail", "Run: npu-gateway pull bge-small-en-v1.5")
    assert unfinished.state == "warn"
    assert "npu-gateway pull phi-3-mini-4k-instruct" in str(unfinished.what_to_do)


@pytest.mark.parametrize(
    ("model_id", "state"),
    [("tiny", "ok"), ("smollm2-135m-instruct", "ok"), ("phi-3-mini-4k-instruct", "fail"), ("nope", "fail")],
)
def test_the_default_model_must_be_here_or_come_by_itself(
    store: ModelStore, model_id: str, state: str
) -> None:
    assert home.check_choice(store, "chat", model_id).state == state


def health(status: str, detail: str | None = None) -> Health:
    model = ModelStatus("bge", "embedding", "ready", "cpu", "r", detail, 512, 384, 0, 0, 0)
    return Health(
        status=status,  # type: ignore[arg-type]
        version=__version__,
        uptime_seconds=1.0,
        npu=NONE,
        models=(model,),
        memory=MemoryStatus(0),
        queue=QueueStatus(0, 0),
    )


def test_a_healthy_gateway_is_shown_with_its_address() -> None:
    assert gateway.check_gateway(ENDPOINT, health("ok"), locked=True) == Finding(
        "gateway", "ok", f"http://127.0.0.1:8000, version {__version__}, process 7, ok"
    )


def test_a_degraded_gateway_is_shown_with_the_reason() -> None:
    found = gateway.check_gateway(ENDPOINT, health("degraded", "out of order"), locked=True)

    assert found.state == "warn"
    assert found.what.endswith("process 7: bge: out of order")


def test_a_gateway_of_another_version_is_to_be_restarted() -> None:
    old = Endpoint(**vars(ENDPOINT) | {"version": "0.0.9"})

    found = gateway.check_gateway(old, health("ok"), locked=True)

    assert (found.state, found.what_to_do) == ("warn", "Run: npu-gateway restart")


@pytest.mark.parametrize(("locked", "state"), [(True, "warn"), (False, "ok")])
def test_a_lock_without_an_answering_gateway_is_pointed_out(locked: bool, state: str) -> None:
    assert gateway.check_gateway(None, None, locked=locked).state == state


def test_the_port_may_be_the_gateways_own_but_not_another_programs() -> None:
    own = gateway.check_port("127.0.0.1", 8000, gateway=ENDPOINT, holder="python listens there")
    foreign = gateway.check_port("127.0.0.1", 8000, gateway=None, holder="python listens there")

    assert verdict(own) == ("ok", False)
    assert foreign.state == "warn"
    assert "python listens there" in foreign.what


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1", "::1"], ("ok", False)),
        ([], ("warn", True)),
    ],
)
def test_clients_are_advised_when_localhost_has_no_address(
    addresses: list[str], expected: tuple[str, bool]
) -> None:
    assert verdict(gateway.check_localhost(addresses, 8000)) == expected


def doctor(
    root: Path, *arguments: str, **variables: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Finding]]:
    done = npu_gateway("doctor", "--json", *arguments, env=environment(root, **variables))
    findings = [Finding(**raw) for raw in json.loads(done.stdout)["findings"]]
    return done, {finding.name: finding for finding in findings}


def test_the_command_finds_nothing_wrong_with_an_intact_home(models_home: Home) -> None:
    done, findings = doctor(models_home.root)

    assert (done.returncode, done.stderr) == (0, "")
    assert {name for name, finding in findings.items() if finding.state == "fail"} == set()
    assert findings["model bge-small-en-v1.5"].what.endswith("every byte verified")


def test_the_command_fails_when_something_does(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('port = "x"\n')
    (tmp_path / "models" / "phi-3-mini-4k-instruct").mkdir(parents=True)

    done, findings = doctor(tmp_path)

    assert done.returncode == 1
    assert [name for name, finding in findings.items() if finding.state == "fail"] == [
        "configuration",
        "model phi-3-mini-4k-instruct",
    ]


def test_the_command_names_the_program_that_holds_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "config.toml").write_text(f"port = {port}\n")

        _, findings = doctor(tmp_path)

    assert findings["port"].state == "warn"
    assert f"127.0.0.1:{port} cannot be used" in findings["port"].what


def test_the_command_knows_the_running_gateway(gateway_home: Home) -> None:
    _, findings = doctor(gateway_home.root)

    assert findings["gateway"].state == "ok"
    assert findings["gateway"].what.startswith("http://127.0.0.1:")


def test_a_path_that_looks_like_markup_is_printed_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "[bold]"

    done = npu_gateway("doctor", env=environment(root, COLUMNS="300"))

    assert str(root) in done.stdout
