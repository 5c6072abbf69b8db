"""De-identification of DICOM objects, files and texts by DICOM PS3.15."""
