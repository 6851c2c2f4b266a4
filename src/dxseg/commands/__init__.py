"""Commands: each is a function in Python and a command of `dxseg`."""
