"""The GSS loss, alone or with the segmentation losses of the same logits."""
