"""`medseg correct`: corrected masks come back, training goes on, and a model that got worse does not ship."""
