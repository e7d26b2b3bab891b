"""Settings: `sections` defines them, `names` names them, `sources` reads them, `document` writes them down."""
