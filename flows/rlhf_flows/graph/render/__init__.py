"""A graph as people and programs see it: drawn in the terminal, as mermaid, as graphviz's dot, as JSON.

Names, reasons and results are other people's text: they are shown as text, without control characters, and without the
secrets that options and addresses may hold (`safe`).
"""

from rlhf_flows.graph.render.document import to_json
from rlhf_flows.graph.render.dot import to_dot
from rlhf_flows.graph.render.mermaid import to_mermaid
from rlhf_flows.graph.render.terminal import to_rich, to_text

__all__ = ["to_dot", "to_json", "to_mermaid", "to_rich", "to_text"]
