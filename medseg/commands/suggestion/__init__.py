"""`medseg suggest`: the unlabelled studies that a model would learn most from, with its own masks to correct."""
