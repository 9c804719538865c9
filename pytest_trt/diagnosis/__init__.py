"""Why not? Where an error enters, which nodes make it, and what their values look like.

``attribution`` splits the error of a case among its stages; ``culprits`` searches the nodes that must stay in float32,
``taps`` the first tensor of an engine that diverges; ``numerics`` counts what rounding loses. ``bisect`` is the search
itself, without any model; ``present`` writes the tables. ``hunt`` puts them together for one case.
"""
