//! Kill -9: what a client was told stays true, and what was under way goes on.
//!
//! Owns: the stories in which the server, a keeper or an agent dies without a word, at points that
//! are chosen by number of events seen. `scene` is a server with its data folder and the calls that
//! the stories make; `follower` is a client that reads a stream over any number of deaths. What
//! must be true of any log is in the harness (`proof`). `driver` mixes everything at random;
//! `turn`, `child`, `mail` and `server` are the stories with a name: of turns and approvals, of
//! agents, keepers and terminals, of team mail, and of starts and ends of the server. `commit` has
//! the server die at each commit of a story in turn; in `lease` no other one comes.
//!
//! Nothing here sleeps: a kill comes after an event, a file or a process was seen, or when a stream
//! has been quiet. A failure of a random test prints its seed.

mod child;
mod commit;
mod driver;
mod follower;
mod lease;
mod mail;
mod scene;
mod server;
mod turn;
