"""What is said, and how it is written: errors, messages, bodies, topics. No I/O."""
