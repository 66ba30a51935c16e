"""What is known of a graph: its scopes, constants, shapes and readers, and how it is edited."""
