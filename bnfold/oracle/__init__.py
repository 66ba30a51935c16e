"""The float64 oracle: what a model's outputs are when rounding is taken out of the question."""
