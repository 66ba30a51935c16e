"""What a validation proves, and by which measure: the float64 oracle, value by value, output by output."""
