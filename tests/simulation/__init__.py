"""The lease under virtual time: the real rules in a simulated world that does its worst."""
