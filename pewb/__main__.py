"""`python -m pewb`."""

from pewb.cli import main

main()
