"""The graph that a pipeline compiles to: nodes and the artifacts between them, as data. Nothing here runs anything."""

from rlhf_flows.graph.node import Graph, Input, Node, Role

__all__ = ["Graph", "Input", "Node", "Role"]
