"""Settings: `sections` defines them, `sources` reads them, `document` writes them down."""
