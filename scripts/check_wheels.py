"""Proves that the runtime dependencies install from wheels alone on every platform we name.

    python scripts/check_wheels.py                    # all platforms
    python scripts/check_wheels.py win_arm64          # one of them

For each platform and CPython version: uv resolves the dependencies of pyproject.toml as that platform's pip
would, then the resolution is checked again with source distributions forbidden. Exit status 1 says what
is missing.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

PROJECT = Path(__file__).parent.parent

PYTHONS = ("3.11", "3.12", "3.13", "3.14")

AT_ONCE = 8
"""They wait for the index most of the time."""


@dataclass(frozen=True)
class Platform:
    """target: as uv calls it. options: of uv, for the extras that exist there and what a user must add."""

    target: str
    options: tuple[str, ...] = ()


# As `pip install --prefer-binary` does: from 1.7 on, its wheels want glibc 2.31.
PREFER_BINARY = ("--only-binary=llguidance",)
NPU = ("--extra=npu",)

PLATFORMS = {
    "win_arm64": Platform("aarch64-pc-windows-msvc"),
    "win_amd64": Platform("x86_64-pc-windows-msvc"),
    "macosx_14_0_arm64": Platform("aarch64-apple-darwin"),
    "manylinux_2_28_x86_64": Platform("x86_64-manylinux_2_28", PREFER_BINARY),
    "manylinux_2_28_aarch64": Platform("aarch64-manylinux_2_28", PREFER_BINARY),
    "manylinux_2_31_x86_64": Platform("x86_64-manylinux_2_31"),
    "manylinux_2_31_aarch64": Platform("aarch64-manylinux_2_31"),
    "win_amd64 npu": Platform("x86_64-pc-windows-msvc", NPU),
    "manylinux_2_35_x86_64 npu": Platform("x86_64-manylinux_2_35", NPU),
    "manylinux_2_34_aarch64 npu": Platform("aarch64-manylinux_2_34", NPU),
}

# The oldest macOS that onnxruntime 1.32 has a wheel for; uv assumes 13 otherwise. To resolve for a Python, uv
# need not have it.
ENVIRONMENT = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_PYTHON_DOWNLOADS": "never"}


@dataclass(frozen=True)
class SourceDistribution:
    package: str
    platform: str
    python: str
    reason: str


SOURCE_DISTRIBUTIONS = (
    SourceDistribution(
        "pyyaml",
        "win_arm64",
        "3.11",
        "needed by huggingface-hub, which tokenizers needs; its source distribution installs as pure Python "
        "when there is no compiler",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("platforms", nargs="*", choices=[*PLATFORMS, []], metavar="PLATFORM")
    platforms = parser.parse_args(argv).platforms or list(PLATFORMS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        missing = list(filter(None, pool.map(check, *zip(*product(platforms, PYTHONS), strict=True))))
    for failure in missing:
        print(failure, file=sys.stderr)
    return 1 if missing else 0


def check(platform: str, python: str) -> str | None:
    """None when every dependency has a wheel, else what uv says about those that have none."""
    resolved = compile_requirements(platform, python, "pyproject.toml", *PLATFORMS[platform].options)
    if resolved.returncode:
        return f"{platform}, Python {python}: cannot be resolved\n{resolved.stderr}"
    excepted = {e for e in SOURCE_DISTRIBUTIONS if (e.platform, e.python) == (platform, python)}
    names = {e.package for e in excepted}
    pins = [pin for pin in resolved.stdout.splitlines() if pin.partition("==")[0] not in names]
    checked = compile_requirements(platform, python, "-", "--no-deps", "--no-build", stdin="\n".join(pins))
    if checked.returncode:
        return f"{platform}, Python {python}: no wheel\n{checked.stderr}"
    print(f"{platform:26} Python {python}: {len(pins)} wheels")
    for exception in excepted:
        print(f"{'':26} not a wheel: {exception.package} ({exception.reason})")
    return None


def compile_requirements(
    platform: str, python: str, requirements: str, *options: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", requirements, *options),
            *("--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--python-version", python, "--python-platform", PLATFORMS[platform].target),
        ],
        cwd=PROJECT,
        env=ENVIRONMENT,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
