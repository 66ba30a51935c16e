"""ONNX Runtime: sessions that run where they were asked to, inputs for them, and comparing what they give."""
