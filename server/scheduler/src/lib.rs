//! The scheduler: a pure core that picks a node for a pod, and a thin shell that binds it.
