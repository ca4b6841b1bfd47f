"""Agent runners: who answers a message on this machine."""
