"""Quality: what `dxseg check` looks for in a dataset."""
