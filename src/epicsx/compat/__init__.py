"""What programs for other Channel Access modules of Python need."""
