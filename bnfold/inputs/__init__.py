"""What models are run on: random samples over sizes and values, or data that the user gives."""
