"""What rollouts promise, measured."""
