"""How good a trained network is: scores by subset of the modalities, tables, intervals."""
