"""`make fuzz`: epicsx against a server that lies, by seeds."""
