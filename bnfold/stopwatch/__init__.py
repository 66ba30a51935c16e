"""What `bnfold.bench` is made of: timing, intervals, pinned threads, and what a model weighs."""
