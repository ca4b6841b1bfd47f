"""The live tail: every machine's own copy of the conversation, redacted, and how it stays close behind."""
