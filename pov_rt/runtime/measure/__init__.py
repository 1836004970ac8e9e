"""What is counted and timed for operators: cheap enough for everything, read when they ask."""
