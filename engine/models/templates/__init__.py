"""Chat templates: programs that come with a model, run in a process that may be ended."""
