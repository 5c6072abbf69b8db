"""Image files other than DICOM: NIfTI, Analyze, NRRD, MetaImage, PNG, JPEG, TIFF, BMP and GIF."""
