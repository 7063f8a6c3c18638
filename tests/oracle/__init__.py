"""The oracle: one script under pyepics and under epicsx, what they answer compared. See tests/README.md."""
