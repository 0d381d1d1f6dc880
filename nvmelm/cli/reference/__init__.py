"""What is made of the verbs by make: pages, man pages, schemas and completions."""
