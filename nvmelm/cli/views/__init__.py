"""What people see of documents: lines of text."""
