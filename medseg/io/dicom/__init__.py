"""DICOM in and out: series to volumes, Segmentations and RT Structure Sets, de-identification. LPS lives here."""
