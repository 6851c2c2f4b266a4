"""LightningModules of the stages: a step computes a loss, logs it and returns it."""
