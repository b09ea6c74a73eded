"""The one that decides.

gateway ─► intake (known keys looked up) ─► decide a batch on the fleet ─► append it ─► answer
                                                 ▲ the next batch is decided meanwhile ┘
"""
