"""An adapter for the world outside: merged into its base, or as GGUF with a Modelfile; signed, with a card.

`export` is the way in. `merge` adds the adapter to bfloat16 weights, `gguf` and `modelfile` write what
llama.cpp and Ollama read, `card` says where it comes from, `check` compares the result with what is served,
`signature` signs the folder. Called by the command line. It calls `training.parity` and `adapters.base`.
"""

from training.export.export import export

__all__ = ["export"]
