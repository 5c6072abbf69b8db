"""Reading and writing DICOM Segmentations."""
