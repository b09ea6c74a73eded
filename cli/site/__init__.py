"""A site as a file: `document` reads and checks it, `plan` compares it with the platform, `apply` makes it so.

    file ─► document.read ─► [Document…] ─► plan.steps (reads the platform) ─► [Step…] ─► the verb sends them in order

Nothing is sent before every document was read and checked. A field that stands in a document is made so as a whole; one
that does not stand there is left alone, and so is every resource that the file does not name.
"""
