"""Token ids: /tokenize, /detokenize, and ids where texts are expected."""
