from typing import Any

import pytest

from tests.clients.conftest import CAPITAL, CHAT, EMBED, TEXTS, Address

langchain_openai = pytest.importorskip("langchain_openai")


@pytest.fixture
def chat(address: Address) -> Any:
    return langchain_openai.ChatOpenAI(
        model=CHAT, base_url=address.base_url, api_key="none", temperature=0, max_tokens=40
    )


def test_its_embeddings_with_defaults_are_those_of_the_texts(
    address: Address, cl100k_for_tiktoken: None
) -> None:
    """By default it sends token ids of OpenAI's vocabulary, not texts."""
    embedder = langchain_openai.OpenAIEmbeddings(model=EMBED, base_url=address.base_url, api_key="none")

    vectors = embedder.embed_documents(TEXTS)

    assert vectors == [pytest.approx(v, abs=1e-5) for v in address.vectors]


def test_it_answers_whole_and_streamed(chat: Any) -> None:
    whole = chat.invoke(CAPITAL)
    streamed = "".join(piece.content for piece in chat.stream(CAPITAL))

    assert "Paris" in whole.content
    assert streamed == whole.content
    assert whole.usage_metadata["output_tokens"] > 0
