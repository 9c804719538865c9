"""A failing case as a folder that shows the failure by itself, and that the commands go on from.

``contents`` is what lies in it, ``write`` makes the folder, ``toml`` its manifest, ``script`` its ``reproduce.py``,
``pictures`` what is drawn beside it. ``verdict`` is the part of the script that compares.
"""
