"""Server: a model over HTTP and the annotation page."""
