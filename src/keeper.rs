//! Kept children.
