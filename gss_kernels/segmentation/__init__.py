"""The segmentation loss of one prediction: class-weighted cross-entropy and soft Dice."""
