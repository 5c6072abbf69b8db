"""Layouts of training data: the images and labels of each case."""
