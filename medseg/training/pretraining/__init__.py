"""Pretraining without labels: a network learns to restore the masked blocks of an image."""
