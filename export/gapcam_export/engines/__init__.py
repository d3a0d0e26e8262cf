"""From an exported ONNX model to a TensorRT engine in a file of gapcam's. It needs neither torch nor ONNX Runtime."""
