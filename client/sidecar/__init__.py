"""The side-car: the record of a refinement, resuming it, and the transports that carry it."""
