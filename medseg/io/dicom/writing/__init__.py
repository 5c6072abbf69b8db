"""DICOM series and objects written from volumes."""
