"""What is in the details of activities, and in messages, whatever they are about: no I/O."""
