"""Two kinds that Berth has not, each in the four places of docs/adding-a-kind.md: three files of these, and a
line in domain/kinds.py. They are put into a copy of the product, never imported from here."""
