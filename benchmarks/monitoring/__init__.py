"""What monitoring promises, measured."""
