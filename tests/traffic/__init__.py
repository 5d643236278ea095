"""What scenarios and benchmarks of the traffic tier share: the fleet, load from a client, faults, what was seen."""
