"""A picture of a result as a DICOM Secondary Capture."""
