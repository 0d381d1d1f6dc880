"""Desired state: what ``/etc/nvmelm.toml`` wants of this host, and how the host is brought there."""
