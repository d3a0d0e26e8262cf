"""What can be measured: gapcam itself, any other ONNX model as a plain classifier, and the peers."""
