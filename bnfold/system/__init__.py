"""The machine, its packages and what they lack."""
