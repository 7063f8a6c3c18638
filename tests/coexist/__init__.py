"""epicsx beside other libraries of EPICS in one process: `make coexist`, `python -m tests.coexist`."""
