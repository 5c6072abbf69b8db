"""Reading and writing DICOM: image series, Segmentations, RT Structure Sets, de-identification. LPS ends here."""
