"""How results show themselves, and how text of a model is shown."""
