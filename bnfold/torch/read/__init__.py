"""PyTorch files in: recognised by their content and loaded without running what they carry."""
