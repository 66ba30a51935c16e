"""What a model needs before it runs on a small device: balanced weights, fewer bits, a fitting form."""
