"""The `berth` command: a client that speaks HTTP alone and imports none of Berth's other packages.

    main ─► verbs/<verb> ─► session ─► connection ─► the API
                 │             └─ contexts (where and who)
                 └─► tables, refusal (what a person sees)

A call must cost about 0.2 s, so `main` knows its verbs by name and imports one only when it is used; rich and yaml are
imported where they are needed. `replay` and `site` hold what is more than one request.
"""
