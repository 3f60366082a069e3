"""Changes to files that Windows refuses for a moment."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import files

PATIENCE = len(files.PAUSES_SECONDS)
CHANGES: dict[str, Callable[[Path], object]] = {
    "replace": lambda folder: files.move(folder / "file", folder / "moved"),
    "unlink": lambda folder: files.remove_file(folder / "file"),
    "rmdir": lambda folder: files.remove_folder(folder / "folder"),
}
DONE = {"replace": ["folder", "moved"], "unlink": ["folder"], "rmdir": ["file"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It holds a file and a folder; there is little time between two tries."""
    monkeypatch.setattr(files, "PAUSES_SECONDS", (0.04,) * PATIENCE)
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "file").touch()
    return home


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[object]]:
    def begin(name: str, times: int, winerror: int | None = 32) -> list[object]:
        """Let the first calls of a function of `os` fail; a list of the calls."""
        function, calls = getattr(os, name), list[object]()

        def refusing(path: Any, *rest: Any, **options: Any) -> None:
            calls.append(path)
            if len(calls) <= times:
                error = PermissionError(13, "somebody has it open")
                if winerror:
                    error.winerror = winerror  # type: ignore[attr-defined]
                raise error
            function(path, *rest, **options)

        monkeypatch.setattr(os, name, refusing)
        return calls

    return begin


def left_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_tried_again_while_somebody_looks_at_the_file(
    folder: Path, refuse: Callable[..., list[object]], name: str
) -> None:
    refuse(name, times=PATIENCE)

    CHANGES[name](folder)

    assert left_in(folder) == DONE[name]


@pytest.mark.parametrize("name", CHANGES)
def test_a_refusal_that_lasts_is_raised(folder: Path, refuse: Callable[..., list[object]], name: str) -> None:
    refuse(name, times=PATIENCE + 1)

    with pytest.raises(PermissionError):
        CHANGES[name](folder)


def test_a_refusal_that_is_not_windows_own_is_raised_at_once(
    folder: Path, refuse: Callable[..., list[object]]
) -> None:
    calls = refuse("replace", times=PATIENCE + 1, winerror=None)

    with pytest.raises(PermissionError):
        CHANGES["replace"](folder)

    assert len(calls) == 1


def test_what_is_gone_already_need_not_be_removed(folder: Path) -> None:
    files.remove_file(folder / "nothing")
    files.remove_folder(folder / "nothing")


def test_a_private_folder_is_never_made_with_a_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows would close it to its own user when an elevated process makes it."""
    mkdir, modes = os.mkdir, list[int]()

    def watched(path: Any, mode: int = 0o777, **options: Any) -> None:
        modes.append(mode)
        mkdir(path, mode, **options)

    monkeypatch.setattr(os, "mkdir", watched)

    files.make_private(tmp_path / "home" / "run")

    assert set(modes) == {0o777}


@pytest.mark.skipif(os.name == "nt", reason="Windows protects the user's profile folder instead")
def test_nobody_else_may_enter_a_private_folder(tmp_path: Path) -> None:
    files.make_private(tmp_path / "home" / "run")

    assert (tmp_path / "home" / "run").stat().st_mode & 0o777 == 0o700


def test_a_scratch_folder_is_gone_after_the_block(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path, "pull-") as folder:
        (folder / "file").touch()
        assert [each.name.startswith("pull-") for each in tmp_path.iterdir()] == [True]

    assert left_in(tmp_path) == []
