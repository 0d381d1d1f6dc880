"""The link between two hosts: frames, what they say, and who starts the other end."""
