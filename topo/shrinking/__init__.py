"""Which units of a torch model may go, and the smaller model without them; `topo.shrink` is the verb."""
