"""Training: losses, the two stages and the run that ties them."""
