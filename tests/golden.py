"""Reference vectors of BGE-small-en-v1.5 on the CPU: data/bge-golden.json."""

import json
from pathlib import Path
from typing import Any

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "bge-golden.json").read_text(encoding="utf-8")
)
