"""The agent's state in a signed git repository: the awake machine writes, the others verify and follow."""
