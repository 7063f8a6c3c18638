"""One process per measurement: each worker does one row with one library and prints JSON."""
