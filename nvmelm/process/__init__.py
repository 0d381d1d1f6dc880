"""This process: its signals, threads and waits, and the programs it starts."""
