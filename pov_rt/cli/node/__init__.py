"""A node as a process: the command that runs one, its signals, and its restarts under --dev."""
