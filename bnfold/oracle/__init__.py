"""The float64 oracle: what a model's outputs are when rounding hardly matters."""
