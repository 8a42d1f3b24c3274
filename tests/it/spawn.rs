//! Spawning members, with demo agents and real git: what is made, what is undone, what ends, and what a crash leaves.
//!
//! `scene` is what the stories begin with. The rest is one file a matter: making, refusing, undoing, leaving,
//! crashes (by name, at random and at each commit), the tool that agents have for it, and its call in the log.

mod call;
mod commit;
mod crash;
mod leave;
mod make;
mod random;
mod refuse;
pub(crate) mod scene;
mod tool;
mod undo;
