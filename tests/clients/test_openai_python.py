from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.clients.conftest import CAPITAL, CHAT, EMBED, TEXTS, Address

ASK: dict[str, Any] = {
    "model": CHAT,
    "messages": [{"role": "user", "content": CAPITAL}],
    "temperature": 0,
    "max_tokens": 40,
}


class City(BaseModel):
    city: str


@pytest.fixture
def client(address: Address) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address.base_url, api_key="none", timeout=120) as client:
        yield client


def test_its_vectors_are_those_of_plain_http(client: openai.OpenAI, address: Address) -> None:
    """It asks for base64 unasked, and would read nonsense from anything else."""
    reply = client.embeddings.create(model=EMBED, input=TEXTS)

    assert [item.embedding for item in reply.data] == [pytest.approx(v, abs=1e-6) for v in address.vectors]
    assert reply.usage.prompt_tokens > 3 * 2


def test_it_gets_the_same_answer_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK).choices[0].message.content
    streamed = "".join(
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**ASK, stream=True)
    )

    assert "Paris" in whole
    assert streamed == whole


def test_its_streaming_helper_follows_the_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ASK, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (final.choices[0].message.content or "")
    assert final.usage
    assert final.usage.completion_tokens > 0


def test_parse_fills_a_model_class(client: openai.OpenAI) -> None:
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"{CAPITAL} Answer in JSON."}]
    answer = client.chat.completions.parse(
        model=CHAT, messages=question, response_format=City, temperature=0, max_tokens=60
    )

    assert isinstance(answer.choices[0].message.parsed, City)


def test_it_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="nope", input="a")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**ASK | {"temperature": 99})

    assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
    assert wrong.value.param == "temperature"
    assert wrong.value.request_id


def test_it_gets_the_same_response_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": CHAT, "input": CAPITAL, "temperature": 0, "max_output_tokens": 40}
    whole = client.responses.create(**asked)
    *_, last = client.responses.create(**asked, stream=True)

    assert "Paris" in whole.output_text
    assert last.response.output_text == whole.output_text
    assert last.response.usage.output_tokens == whole.usage.output_tokens > 0


def test_a_parsed_response_fills_a_model_class(client: openai.OpenAI) -> None:
    answer = client.responses.parse(
        model=CHAT, input=f"{CAPITAL} Answer in JSON.", text_format=City, temperature=0, max_output_tokens=60
    )

    assert isinstance(answer.output_parsed, City)
