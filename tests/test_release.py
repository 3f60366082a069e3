"""What `uv build` makes for an index: complete, reproducible, and read without the files beside it."""

import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import pytest

import engine

PROJECT = Path(__file__).parent.parent
PACKAGES = ("engine", "mcp_server", "openai_shim")


@dataclass(frozen=True)
class Artefacts:
    sdist: Path
    wheel: Path


def build(folder: Path, *options: str, source: Path = PROJECT) -> Path:
    words = [sys.executable, "-m", "uv", "build", "--quiet", *options, "--out-dir", str(folder), str(source)]
    subprocess.run(words, check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    """As they are published: the wheel is built of the sdist."""
    folder = build(tmp_path_factory.mktemp("artefacts"))
    return Artefacts(*folder.glob("*.tar.gz"), *folder.glob("*.whl"))


@pytest.fixture(scope="module")
def metadata(artefacts: Artefacts) -> str:
    with zipfile.ZipFile(artefacts.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return wheel.read(name).decode()


def test_a_second_build_gives_the_same_bytes(artefacts: Artefacts, tmp_path: Path) -> None:
    again = build(tmp_path)

    assert (again / artefacts.sdist.name).read_bytes() == artefacts.sdist.read_bytes()
    assert (again / artefacts.wheel.name).read_bytes() == artefacts.wheel.read_bytes()


def test_the_wheel_of_the_checkout_is_the_wheel_of_the_sdist(artefacts: Artefacts, tmp_path: Path) -> None:
    direct = build(tmp_path, "--wheel")

    assert (direct / artefacts.wheel.name).read_bytes() == artefacts.wheel.read_bytes()


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(artefacts: Artefacts) -> None:
    files = {
        path.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(artefacts.wheel) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert found == files
    assert files >= {f"{package}/py.typed" for package in PACKAGES}


def test_the_sdist_holds_all_that_the_tests_need(artefacts: Artefacts) -> None:
    with tarfile.open(artefacts.sdist) as sdist:
        top = {name.split("/", 2)[1] for name in sdist.getnames()}

    assert top >= {
        *PACKAGES,
        "tests",
        "benchmarks",
        "docs",
        "examples",
        "scripts",
        "README.md",
        "CHANGELOG.md",
    }


def test_the_package_says_where_it_comes_from_and_what_it_runs_on(metadata: str) -> None:
    found = message_from_string(metadata)

    assert found["Version"] == engine.__version__
    assert found["Requires-Python"] == "<3.15,>=3.11"
    assert {url.partition(",")[0] for url in found.get_all("Project-URL", [])} == {
        "Changelog",
        "Documentation",
        "Homepage",
        "Issues",
    }
    assert {"Programming Language :: Python :: 3.14", "Typing :: Typed"} <= set(
        found.get_all("Classifier", [])
    )


def test_every_link_of_the_readme_works_on_an_index(metadata: str) -> None:
    """Relative ones are made absolute; each leads to this version of a file that is there."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    relative = re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme)
    at = f"https://github.com/npu-gateway/npu-gateway/blob/v{engine.__version__}/"

    shown = re.findall(r"\]\(([^)]+)\)", str(message_from_string(metadata).get_payload()))

    assert [link.removeprefix(at) for link in shown if link.startswith(at)] == relative
    assert [link for link in shown if not link.startswith(("https://", "http://", "#"))] == []


def test_the_changelog_tells_when_this_version_came_out() -> None:
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(
        rf"^## {re.escape(engine.__version__)} - \d{{4}}-\d\d-\d\d$", changes, flags=re.MULTILINE
    )
