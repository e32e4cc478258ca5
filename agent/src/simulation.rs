//! Hooks for a simulated machine: random numbers, and power cuts between two effects on the disk.
//!
//! Only tests enable the feature `simulation`. A simulation applies to one thread, since many run in parallel.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;

/// An effect on the file system that has just happened.
#[derive(Debug)]
pub enum Effect<'a> {
    /// The content of a file, or the entries of a directory, were flushed to the disk (`fsync(2)`).
    Synced(BorrowedFd<'a>),
    /// An entry of the directory now refers to a complete new version of a file.
    Named(BorrowedFd<'a>, &'a Path),
    /// An entry of the directory was removed.
    Removed(BorrowedFd<'a>, &'a Path),
}

/// A simulated machine.
pub trait Simulation {
    /// Returns a random number.
    fn random(&self) -> u32;

    /// Records an effect. A simulated power cut unwinds from here.
    fn effect(&self, effect: &Effect<'_>);
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Simulation>>> = const { RefCell::new(None) };
}

/// Guard of the simulation of this thread, which ends when the guard is dropped.
#[must_use]
pub struct Running(());

impl Running {
    /// Starts the simulation.
    pub fn start(simulation: Rc<dyn Simulation>) -> Self {
        CURRENT.set(Some(simulation));
        Self(())
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

fn current() -> Option<Rc<dyn Simulation>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Returns a random number of the simulation, if one is running.
pub(crate) fn random() -> Option<u32> {
    current().map(|simulation| simulation.random())
}

/// Reports an effect to the simulation, if one is running.
pub(crate) fn report(effect: &Effect<'_>) {
    if let Some(simulation) = current() {
        simulation.effect(effect);
    }
}
