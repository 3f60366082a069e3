"""LangChain with the local models: a question about a text, found by its meaning.

pip install langchain-openai
python examples/langchain_chat.py
"""

import os

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
TEXTS = ["Paris is the capital of France.", "Bread is made of flour and water.", "The Rhine flows north."]

embeddings = OpenAIEmbeddings(
    model="bge-small-en-v1.5",
    base_url=URL,
    api_key="unused",
    check_embedding_ctx_length=False,  # send texts; by default it downloads a tokeniser and sends its ids
)
chat = ChatOpenAI(model="smollm2-135m-instruct", base_url=URL, api_key="unused", temperature=0, max_tokens=60)

question = "Which city is the seat of the French government?"
(found,) = InMemoryVectorStore.from_texts(TEXTS, embeddings).similarity_search(question, k=1)
print(found.page_content)
print(chat.invoke(f"{found.page_content}\nWhat is the capital of France?").content)
