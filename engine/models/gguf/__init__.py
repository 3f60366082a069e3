"""Reading GGUF files: metadata, tensors, tokenizers."""
