//! The rules of delivery, against a world that is simulated.
