"""Models made of others: ensembles, cascades, and parts that find different labels."""
