"""The strict load client: a request is good only when every part of its answer is what was asked for."""
