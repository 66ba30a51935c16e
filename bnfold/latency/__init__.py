"""Two models timed against each other: rounds, intervals, pinned threads, and what a model weighs."""
