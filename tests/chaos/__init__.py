"""Real nodes under fire: a nemesis breaks machines, links, hub and receiver; a checker reads the history.

``python -m tests.chaos --minutes 5 --machines 3 --seed 7`` runs it for as long as you like; ``test_chaos.py``
runs a short one. The outside of the mesh is one process (the test): the client that sends, the webhook
receiver, the wires between the machines, and the nemesis. What they saw is a ``History``; ``checker`` judges
it and nothing else.
"""
