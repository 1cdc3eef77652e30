"""The side-by-side suite: what `benches/compare/run` is made of. Standard library only."""
