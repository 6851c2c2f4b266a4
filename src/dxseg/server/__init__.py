"""HTTP server: a model, a queue in front of it and the annotation page."""
