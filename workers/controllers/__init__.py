"""Controllers that carry out work: the reference ones that prove the contract."""
