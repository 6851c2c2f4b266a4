"""The commands: each function is a command of `dxseg` and a public function of the package.

`app` registers them and ends the process; the other modules hold them, in the order of work. They
load heavy libraries in their bodies only, so that `--help` and wrong usage are printed at once.
"""
