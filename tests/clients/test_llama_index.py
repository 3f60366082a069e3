import pytest

from tests.clients.conftest import CAPITAL, CHAT, EMBED, TEXTS, Address

llms = pytest.importorskip("llama_index.llms.openai_like")
embeddings = pytest.importorskip("llama_index.embeddings.openai_like")


def test_its_embeddings_are_those_of_plain_http(address: Address) -> None:
    embedder = embeddings.OpenAILikeEmbedding(
        model_name=EMBED, api_base=address.base_url, api_key="none", embed_batch_size=10
    )

    vectors = embedder.get_text_embedding_batch(TEXTS)

    assert vectors == [pytest.approx(vector, abs=1e-6) for vector in address.vectors]


@pytest.mark.parametrize("is_chat_model", [False, True], ids=["text completion, its default", "chat"])
def test_it_answers(address: Address, is_chat_model: bool) -> None:
    llm = llms.OpenAILike(
        model=CHAT,
        api_base=address.base_url,
        api_key="none",
        temperature=0,
        max_tokens=40,
        is_chat_model=is_chat_model,
    )

    assert "Paris" in llm.complete(CAPITAL).text
    assert "Paris" in "".join(piece.delta for piece in llm.stream_complete(CAPITAL))
