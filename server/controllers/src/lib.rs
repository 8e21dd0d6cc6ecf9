//! The controllers, each a pure core (`decide`) in one frame: one informer a kind, a work queue, its own identity.
