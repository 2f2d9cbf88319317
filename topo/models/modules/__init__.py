"""torch modules as they are found: who holds a weight, how it is laid out, how a model is called."""
