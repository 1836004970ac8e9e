"""`python -m pov_rt.cli` is the command `pov-rt`."""

from pov_rt.cli.main import main

main()
