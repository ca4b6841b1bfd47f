"""Letting a machine into the mesh with a spoken code: words, key exchange, session, host and joiner."""
