"""The commands of ``instar``, one module a subject; each is imported only when it runs."""
