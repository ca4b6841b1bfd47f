"""The pool: which machine answers which topic, and how a topic moves."""
