"""From an `nn.Module` to ONNX, with every BatchNorm in its place."""
