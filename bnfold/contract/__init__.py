"""The model's contract: what it takes and gives, and the versions and the format that it is written in."""
