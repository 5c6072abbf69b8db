"""Training with images without labels: views of them, and what networks teach each other there."""
