"""Applies a model's chat template, within limits of time, memory and length."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, Self, cast

import psutil

from engine.errors import ModelSupplyError
from engine.models.templates.template_messages import Declined, Render, Rendered, TemplateOptions
from engine.workers.channel import Channel
from engine.workers.handshake import LoadFailed, OtherVersion, Ready, assign, introduced
from engine.workers.process import out_of_reach_of_ctrl_c

_LOAD_SECONDS = 30.0
_RENDER_SECONDS = 5.0
_CHARACTERS_PER_SECOND = 200_000
"""Published templates render a million characters in 0.1 s."""

_MOST_GROWTH_BYTES = 256 << 20
_MOST_TIMES = 8
"""A prompt so many times as long as its messages, and 64 Ki characters."""

_MANY_TURNS = 100
"""What grows with every message by a factor shows."""

_LOOK_SECONDS = 0.02


class TemplateRenderer:
    """Use it in a `with`, from one thread at a time. Its process is started anew when it had to be stopped.

    folder: a model in the format of onnxruntime-genai. model_id: for the errors.
    """

    def __init__(self, folder: Path, model_id: str) -> None:
        self._folder = folder
        self._model_id = model_id
        self._process: _TemplateProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.close()
            self._process = None

    def render(self, messages_json: str) -> str:
        """messages_json: an array of {"role", "content"}.

        Raises RuntimeError when the template refuses the messages, ModelSupplyError when it passes a limit.
        """
        if self._process and self._process.has_ended:
            self.__exit__()
        if self._process is None:
            self._process = _TemplateProcess(self._folder, self._model_id)
        seconds = _RENDER_SECONDS + len(messages_json) / _CHARACTERS_PER_SECOND
        most_characters = (64 << 10) + _MOST_TIMES * len(messages_json)
        match self._process.ask(Render(messages_json, seconds, most_characters), seconds):
            case Rendered(prompt):
                return prompt
            case Declined(reason):
                raise RuntimeError(reason)
            case other:
                raise AssertionError(f"unexpected from a template: {other!r}")


def require_sound_template(folder: Path, model_id: str) -> None:
    """Raises ModelSupplyError if the template of the model cannot put a question, or passes a limit."""
    question = [{"role": "user", "content": "Hello"}]
    answered = [*question, {"role": "assistant", "content": "Hello"}]
    with TemplateRenderer(folder, model_id) as renderer:
        try:
            renderer.render(json.dumps(question))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ModelSupplyError(f"The chat template of {model_id} cannot be used: {reason}") from error
        with contextlib.suppress(RuntimeError):  # it may refuse what it does not know
            renderer.render(json.dumps(_MANY_TURNS * answered))


class _TemplateProcess:
    def __init__(self, folder: Path, model_id: str) -> None:
        """Raises ModelSupplyError."""
        self._model_id = model_id
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.models.templates.template_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            **out_of_reach_of_ctrl_c(),
        )
        self._program = psutil.Process(self._popen.pid)
        self._stdin, self._stdout = cast(BinaryIO, self._popen.stdin), cast(BinaryIO, self._popen.stdout)
        self._channel = Channel(self._stdout, self._stdin)
        self._replies: queue.SimpleQueue[object] = queue.SimpleQueue()
        try:
            self._begin(folder)
        except BaseException:
            self.close()
            raise

    def _begin(self, folder: Path) -> None:
        try:
            assign(self._channel, TemplateOptions(folder, _LOAD_SECONDS))
            self._program = psutil.Process(introduced(self._channel))  # on Windows Popen's may be a launcher
        except (OSError, EOFError, OtherVersion, psutil.Error) as error:
            raise ModelSupplyError(
                f"The chat template of {self._model_id} cannot be run ({error or 'its process ended'})."
            ) from error
        self._most_bytes = self._rss_bytes() + _MOST_GROWTH_BYTES
        threading.Thread(target=self._read, name="from the template", daemon=True).start()
        match self._reply(_LOAD_SECONDS):
            case Ready():
                return
            case LoadFailed(reason):
                raise ModelSupplyError(f"The chat template of {self._model_id} cannot be loaded: {reason}")
            case other:
                raise AssertionError(f"unexpected from a template: {other!r}")

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def ask(self, request: Render, seconds: float) -> object:
        """Raises ModelSupplyError, and then the process is gone."""
        with contextlib.suppress(OSError):  # it has ended, as the missing reply will tell
            self._channel.send(request)
        return self._reply(seconds)

    def close(self) -> None:
        with contextlib.suppress(psutil.Error):  # it has ended
            self._program.kill()
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):  # of what could not be delivered
                pipe.close()

    def _reply(self, seconds: float) -> object:
        deadline = time.monotonic() + seconds
        while True:
            try:
                reply = self._replies.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._rss_bytes() > self._most_bytes:
                    raise self._stopped("takes too much memory") from None
                if time.monotonic() > deadline:
                    raise self._stopped(f"has not ended after {seconds:.0f} s") from None
            else:
                if isinstance(reply, EOFError):
                    raise self._stopped(f"has not ended within {seconds:.0f} s, or calls itself without end")
                return reply

    def _stopped(self, what: str) -> ModelSupplyError:
        self.close()
        return ModelSupplyError(f"The chat template of {self._model_id} {what}, so it was stopped.")

    def _read(self) -> None:
        try:
            while True:
                self._replies.put(self._channel.receive())
        except (EOFError, OSError, ValueError):  # ended, or closed here
            self._replies.put(EOFError())

    def _rss_bytes(self) -> int:
        try:
            return int(self._program.memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0
