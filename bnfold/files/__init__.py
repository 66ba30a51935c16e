"""Files on disk: what one holds, reading models of any IR version, writing them whole or not at all."""
