"""How crops are varied on the device that trains; imports torch alone."""

from gss_train.augmentation.batch import PUBLISHED_AUGMENTATION, AugmentationSettings, augment

__all__ = ["PUBLISHED_AUGMENTATION", "AugmentationSettings", "augment"]
