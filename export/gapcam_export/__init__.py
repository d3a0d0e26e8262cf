"""gapcam_export: from a classifier to an ONNX model that keeps gapcam's contract."""
