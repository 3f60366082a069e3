"""Find the files of a folder by meaning: nothing leaves the machine.

pip install openai usearch
python examples/semantic_search.py FOLDER "what you look for"
"""

import os
import sys
import textwrap
from pathlib import Path

import numpy as np
from openai import OpenAI
from usearch.index import Index

MODEL = "bge-small-en-v1.5"
client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="unused")


def paragraphs(folder: Path) -> list[tuple[Path, str]]:
    return [
        (file, piece)
        for file in sorted(folder.rglob("*.txt"))
        for paragraph in file.read_text(encoding="utf-8", errors="replace").split("\n\n")
        for piece in textwrap.wrap(paragraph, 1200)  # the model reads about so much
    ]


def vectors(texts: list[str], model: str) -> np.ndarray:
    rows = []
    for start in range(0, len(texts), 2048):  # the most that one request may hold
        reply = client.embeddings.create(model=model, input=texts[start : start + 2048])
        rows += [item.embedding for item in reply.data]
    return np.array(rows, dtype=np.float32)


def main(folder: str, question: str) -> None:
    known = paragraphs(Path(folder))
    if not known:
        sys.exit(f"There is no text in {folder}: put some .txt files there.")
    index = Index(ndim=384, metric="ip")
    index.add(np.arange(len(known)), vectors([text for _, text in known], MODEL))
    # A question is not a document: the model was trained with an instruction in front of questions.
    (asked,) = vectors([question], f"{MODEL}:query")
    for match in index.search(asked, 3):
        file, text = known[match.key]
        print(f"{1 - match.distance:.2f}  {file.name}  {text[:80]!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
