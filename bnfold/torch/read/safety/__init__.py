"""What a PyTorch file may contain, checked before it is read."""
