"""ONNX Runtime: sessions on exactly the requested provider, and the comparison of their outputs."""
