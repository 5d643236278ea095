"""The capacity library against vLLM itself: it runs the collection's own code."""

from tools.checkout import make_importable

make_importable()
