"""PyTorch files in: told apart by content and loaded without running what they carry."""
