"""`python -m dxseg` is the command line too."""

from dxseg.commands.app import main

main()
