"""augmentation: to be described."""
