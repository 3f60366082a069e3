"""What runs a chat model: the protocol that the scheduler knows, and onnxruntime-genai behind it."""
