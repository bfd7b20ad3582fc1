"""For operators: metrics, health and capabilities."""
