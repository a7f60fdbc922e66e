"""Training application for brain tumour segmentation with missing MRI modalities, with and without GSS."""
