"""What travels between the gateway and a chat worker arrives whole."""

import pickle

import pytest

from engine.errors import BadInput, ContextTooLong, EngineError, Overloaded


@pytest.mark.parametrize(
    "error",
    [
        EngineError("plain"),
        BadInput("wrong", field="messages"),
        ContextTooLong(limit_tokens=10, actual_tokens=11, field="messages"),
        Overloaded("full", retry_after_seconds=5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_with_everything_it_knows(error: EngineError) -> None:
    arrived = pickle.loads(pickle.dumps(error))

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
