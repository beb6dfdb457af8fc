"""`python -m outpost`: the same as the command `outpost`."""

from outpost.cli import main

main()
