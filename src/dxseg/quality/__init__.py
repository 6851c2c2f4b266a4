"""`dxseg check`: what is wrong with a dataset, before it makes results wrong."""
