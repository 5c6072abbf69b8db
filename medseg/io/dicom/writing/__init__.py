"""Writing DICOM series and objects from volumes."""
