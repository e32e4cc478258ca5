//! Attacks on the flashing host that must not succeed. Each attack is carried out by a process of another user.

mod attacker;
mod copies;
mod hangs;
mod lookups;
mod planted;
mod races;
mod strict;
mod terminal;
