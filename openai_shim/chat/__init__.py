"""POST /v1/chat/completions, and the same over a WebSocket."""
