"""One node: wired together, opened, drained, stopped."""
