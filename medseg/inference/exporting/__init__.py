"""A trained model as a bundle that other runtimes run, and such a bundle as networks."""
