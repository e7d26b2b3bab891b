"""Settings: `sections` and `types` define them, `names` names them, `sources` reads them, `structure` checks them,
`document` writes them down.
"""
