"""How the parts of a node are put together: read from a home, built, tied to one another."""
