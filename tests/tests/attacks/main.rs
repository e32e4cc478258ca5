//! What somebody who means harm tries at the flashing host, and what must not come of it. Each attack is carried out by a process of
//! another user.

mod attacker;
mod copies;
mod hangs;
mod lookups;
mod planted;
mod races;
mod strict;
mod terminal;
