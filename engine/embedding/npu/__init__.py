"""The embedding model on the neural processor, through the QNN execution provider of onnxruntime."""
