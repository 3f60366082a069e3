import pytest

from tests.clients.conftest import CAPITAL, CHAT, EMBED, TEXTS, Address

litellm = pytest.importorskip("litellm")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # its own pydantic models warn


def test_its_embeddings_are_those_of_plain_http(address: Address) -> None:
    reply = litellm.embedding(
        model=f"openai/{EMBED}",
        input=TEXTS,
        api_base=address.base_url,
        api_key="none",
        encoding_format="float",
    )

    assert [item["embedding"] for item in reply.data] == [
        pytest.approx(vector, abs=1e-6) for vector in address.vectors
    ]


def test_it_answers(address: Address) -> None:
    reply = litellm.completion(
        model=f"openai/{CHAT}",
        messages=[{"role": "user", "content": CAPITAL}],
        api_base=address.base_url,
        api_key="none",
        temperature=0,
        max_tokens=40,
    )

    assert "Paris" in reply.choices[0].message.content


def test_it_knows_the_errors_for_what_they_are(address: Address) -> None:
    asked = {"api_base": address.base_url, "api_key": "none", "max_retries": 0}
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/nope", messages=[{"role": "user", "content": "a"}], **asked)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            model=f"openai/{CHAT}", messages=[{"role": "user", "content": "word " * 9000}], **asked
        )
