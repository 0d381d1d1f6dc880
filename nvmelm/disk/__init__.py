"""Files that must survive: written whole or not at all, locked, and read within bounds."""
