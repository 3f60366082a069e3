"""What `npu-gateway doctor` finds: each check in made-up situations, and the command on real homes."""

import socket
from pathlib import Path, PureWindowsPath

import pytest
from packaging.requirements import Requirement

from engine import __version__
from engine.daemon import Endpoint
from engine.doctor import Finding, gateway, home, software
from engine.errors import BadInput
from engine.models.store import Leftover, ModelStore
from engine.settings import Home
from tests.engine.cli.commands import environment, npu_gateway
from tests.engine.cli.findings import ENDPOINT, doctor, health, verdict


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
