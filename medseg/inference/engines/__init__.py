"""The engines that run a model's networks, and the trial that chooses among them; see `medseg.inference.engine`."""
