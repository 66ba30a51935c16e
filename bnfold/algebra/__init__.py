"""Per-channel affine maps, kernels as linear forms, products of matrices. Nothing here knows ONNX."""
