"""The commands of `pov-rt`: one module for each, `main` for all, and what they share."""
