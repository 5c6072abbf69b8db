"""`medseg accept`: a model on a site's own cases, and a page to sign."""
