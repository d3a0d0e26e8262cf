"""Two models on the same images: how alike their answers and their maps are. Needs neither torch nor onnx."""
