"""Programs that have a say at the named points of a migration."""
