"""The embedding model on the neural processor, through the QNN execution provider of onnxruntime."""

EMULATION_VARIABLE = "NPU_GATEWAY_EMULATE_NPU"
"""Set to 1, it lets the emulator in the x86-64 Linux wheel stand in for an NPU."""

NOT_INSTALLED = 'onnxruntime-qnn is not installed; except on macOS, pip install "npu-gateway[npu]" brings it.'
