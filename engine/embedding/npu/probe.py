"""Says on its standard output, as one line of JSON, which NPU there is; see devices/npu_probe.py.

    python -m engine.embedding.npu.probe

A process of its own, because looking loads the vendor's drivers.
"""

import json
import os
from dataclasses import asdict

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import of onnxruntime

import click

from engine.embedding.npu.device import find_npu
from engine.embedding.npu.npu_worker import identity_of


def main() -> None:
    search = find_npu()
    identity = identity_of(search.npu) if search.npu else None
    click.echo(f"\n{json.dumps({'status': asdict(search.status), 'identity': identity})}")


if __name__ == "__main__":
    main()
