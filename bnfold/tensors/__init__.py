"""Constants that need not fit into memory: read, computed, checked and written block by block."""
