"""Two models timed against each other: rounds, intervals, pinned threads, and the size of a model."""
