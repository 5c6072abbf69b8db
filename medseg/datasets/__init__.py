"""Layouts of training data: which files are the images and labels of which case."""
