"""From a folded graph back to a copy of the module that it was exported from."""
