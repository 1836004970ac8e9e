"""`pov-rt top`: what is on a node, on a terminal, what is worst first."""
