"""The parts of which `score.py` is put together. None of them imports another: their text is what is used."""
