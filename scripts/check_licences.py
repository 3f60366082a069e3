"""Proves that everything `pip install npu-gateway` brings may be used with MIT-licensed software.

    python scripts/check_licences.py

Reads the metadata of the installed packages. Exit status 1 names what is not allowed or does not say.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement

ALLOWED = (
    *("MIT", "BSD", "3-CLAUSE BSD", "0BSD", "APACHE", "ISC", "ZLIB", "HPND", "TCL"),
    *("PSF", "PYTHON SOFTWARE", "MPL", "MOZILLA", "UNLICENSE", "PUBLIC DOMAIN", "CC0"),
)
"""What the name of a licence begins with; the Mozilla one binds only its own files."""


def installed(name: str, seen: set[str]) -> Iterator[Distribution]:
    """The package and all that it needs here, each once."""
    found = distribution(name)
    key = found.metadata["Name"].lower().replace("_", "-")
    if key in seen:
        return
    seen.add(key)
    yield found
    for line in found.requires or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield from installed(needed.name, seen)


def licences(package: Distribution) -> list[str]:
    metadata = package.metadata
    for expression in metadata.get_all("License-Expression") or ():
        return [each.strip("() ") for each in expression.replace(" OR ", " AND ").split(" AND ")]
    classified = metadata.get_all("Classifier") or []
    named = [each.rpartition("::")[2].strip() for each in classified if each.startswith("License ::")]
    precise = [each for each in named if each != "OSI Approved"]
    short = (metadata.get_all("License") or [""])[0].splitlines()[:1]
    return precise or short


def main() -> int:
    wrong = 0
    for package in installed("npu-gateway", set()):
        found = licences(package)
        if not found or not all(each.upper().removeprefix("THE ").startswith(ALLOWED) for each in found):
            print(f"{package.metadata['Name']} {package.version}: {', '.join(found) or 'no licence named'}")
            wrong += 1
    print("Every licence is allowed." if not wrong else f"{wrong} packages must be looked at.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
