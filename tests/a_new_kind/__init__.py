"""A kind that Berth has not, a dock, in the four places of which docs/adding-a-kind.md speaks: these three files, and a
line in domain/kinds.py. They are put into a copy of the product, never imported from here."""
