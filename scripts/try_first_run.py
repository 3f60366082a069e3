"""Does what a newcomer does: runs the README's serve command in a bare checkout, then asks it things.

    python scripts/try_first_run.py CHECKOUT "python3 -m venv ... && ... serve"

The gateway gets an empty home, so the models are fetched and converted on the way. Ends with exit status 0
when the `openai` client got vectors and an answer, and the gateway left no process behind.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import openai
import psutil

URL = "http://127.0.0.1:8000"
DEADLINE_SECONDS = 600


def main() -> None:
    checkout, command = Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as home:
        gateway = subprocess.Popen(
            ["bash", "-euc", command],
            cwd=checkout,
            env=os.environ | {"NPU_GATEWAY_HOME": home},
            start_new_session=True,
        )
        try:
            wait_until_ok(gateway, URL)
            ask(URL)
            started = psutil.Process(gateway.pid)
            family = [started, *started.children(recursive=True)]
            os.killpg(gateway.pid, signal.SIGINT)
            gateway.wait(timeout=30)
        finally:
            if gateway.poll() is None:
                os.killpg(gateway.pid, signal.SIGKILL)
    _, left = psutil.wait_procs(family, timeout=5)  # the system takes a moment to bury who has ended
    assert not left, f"still running after Ctrl-C: {left}"
    print("first run: installed, served, answered, ended")


def wait_until_ok(gateway: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        assert gateway.poll() is None, f"the serve command ended with status {gateway.returncode}"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
                health = json.load(reply)
        except OSError:
            health = {"status": "not up"}
        if health["status"] == "ok":
            return
        assert health["status"] != "degraded", health
        time.sleep(0.5)
    raise TimeoutError(f"the gateway was not ready after {DEADLINE_SECONDS} s")


def ask(url: str) -> None:
    """At the door for OpenAI's clients."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        vector = client.embeddings.create(model="bge-small-en-v1.5", input="A cat sat on the mat.").data[0]
        length = sum(number * number for number in vector.embedding) ** 0.5
        assert (len(vector.embedding), round(length, 3)) == (384, 1.0), (len(vector.embedding), length)
        answer = client.chat.completions.create(
            model="smollm2-135m-instruct",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
        )
        assert "Paris" in (answer.choices[0].message.content or ""), answer


if __name__ == "__main__":
    main()
