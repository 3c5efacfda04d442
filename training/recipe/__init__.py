"""What will be trained and how: a request (TOML, a preset, flags) and the frozen `Recipe` it resolves to.

`resolved` is what runs and what lineage records; `request` is what a person writes; `resolve` goes from one
to the other by rules that say why; `unserved` knows what no engine could serve. Called by the rest of
`training` and, late, by the command line. It calls `adapters` for what engines refuse.
"""

from training.recipe.resolved import Recipe, Stopped, TrainingError

__all__ = ["Recipe", "Stopped", "TrainingError"]
