"""Step 6 between two hosts: the session, its protocol, and who owns what when something breaks."""
