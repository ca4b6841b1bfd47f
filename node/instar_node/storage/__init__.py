"""What lies on disk under one home: its paths, its lock, atomic files and the SQLite database."""
