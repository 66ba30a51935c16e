"""What a file of PyTorch may contain before anything in it is read."""
