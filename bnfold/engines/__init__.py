"""Runtimes other than ONNX Runtime: each converts a model with its own tools, loads it and runs it."""
