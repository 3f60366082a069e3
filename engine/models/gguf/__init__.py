"""GGUF files turned into onnxruntime-genai model folders."""
