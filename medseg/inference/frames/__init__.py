"""Frames in, masks out: ultrasound, endoscopy, video."""
