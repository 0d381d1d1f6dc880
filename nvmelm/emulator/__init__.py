"""An emulated host: admin queues and sysfs over one persistent state, obeying the specification and nothing else."""
