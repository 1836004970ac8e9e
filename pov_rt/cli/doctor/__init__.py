"""`pov-rt doctor`: what is wrong with an installation, each finding with the line that mends it."""
