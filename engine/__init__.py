"""One engine for embeddings and chat on this machine: models, devices, queues, workers.

Nothing is imported here, so that a process which needs only `engine.remote.client` stays small.
"""

__version__ = "0.1.0"
