"""Measurements as DICOM Structured Reports."""
