"""`python -m ledgerd`: the command line."""

from ledgerd.cli import main

main()
