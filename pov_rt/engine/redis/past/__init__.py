"""What changes the past: bodies that are replaced, topics that go, and files that must forget."""
