"""The catalogue of faults: what is done to a client, what must come of it, and what does. See tests/README.md."""
