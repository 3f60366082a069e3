"""Stop strings in a text that arrives in pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.chat.stopping import Released, StopFinder


def test_a_stop_string_is_found_across_pieces_and_never_partly_released() -> None:
    finder = StopFinder(("STOP",))

    released = [finder.feed(piece) for piece in ("one S", "T", "O", "P two")]

    assert released == [
        Released("one ", stopped=False),
        Released("", stopped=False),
        Released("", stopped=False),
        Released("", stopped=True, rest=" two"),
    ]


def test_a_false_start_is_released_as_soon_as_it_is_known_to_be_one() -> None:
    finder = StopFinder(("STOP",))

    released = [finder.feed(piece) for piece in ("one ST", "ART")]

    assert released == [Released("one ", stopped=False), Released("START", stopped=False)]


def test_the_first_of_several_stop_strings_wins() -> None:
    assert StopFinder(("two", "one")).feed("zero one two") == Released("zero ", stopped=True, rest=" two")


def test_the_end_of_the_text_releases_what_was_held() -> None:
    finder = StopFinder(("\n\n",))
    finder.feed("line\n")

    assert finder.flush() == "\n"


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_stop_strings_everything_passes(stops: tuple[str, ...]) -> None:
    assert StopFinder(stops).feed("text") == Released("text", stopped=False)


@settings(deadline=None)
@given(
    pieces=st.lists(st.text("ab\n", max_size=4)),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
)
def test_however_the_text_is_cut_the_result_is_the_text_in_front_of_a_stop_string(
    pieces: list[str], stops: tuple[str, ...]
) -> None:
    finder = StopFinder(tuple(stops))
    released = ""
    for piece in pieces:
        step = finder.feed(piece)
        released += step.text
        if step.stopped:
            break
    else:
        released += finder.flush()

    text = "".join(pieces)
    assert text.startswith(released)
    assert not any(stop in released for stop in stops)
    assert any(text.startswith(stop, len(released)) for stop in stops) or released == text
