"""Text to vectors: graphs, devices, batching."""
