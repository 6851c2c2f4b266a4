"""A model behind HTTP: `dxseg serve`."""
