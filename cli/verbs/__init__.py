"""The verbs of `berth`, related ones in one module; `cli.main.VERBS` says which is where."""
