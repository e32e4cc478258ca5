//! What a simulation decides in place of the machine: random numbers, and whether the power fails between two effects on the disk.
//!
//! Only tests have the feature `simulation`. A simulation lasts for one thread, since many run side by side.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;

/// Something that has just happened to a file on its way to the disk.
#[derive(Debug)]
pub enum Effect<'a> {
    /// The content of a file, or the names in a directory, were written through (`fsync(2)`).
    Synced(BorrowedFd<'a>),
    /// A name of the directory stands for a complete new version of a file.
    Named(BorrowedFd<'a>, &'a Path),
    /// A name was taken out of the directory.
    Removed(BorrowedFd<'a>, &'a Path),
}

/// The simulated machine.
pub trait Simulation {
    /// A random number.
    fn random(&self) -> u32;

    /// Takes note of an effect; a power cut unwinds from here.
    fn effect(&self, effect: &Effect<'_>);
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Simulation>>> = const { RefCell::new(None) };
}

/// The simulation of this thread, until this value is dropped.
#[must_use]
pub struct Running(());

impl Running {
    /// Starts it.
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

/// A random number of the simulation, if there is one.
pub(crate) fn random() -> Option<u32> {
    current().map(|simulation| simulation.random())
}

/// Tells the simulation, if there is one.
pub(crate) fn tell(effect: &Effect<'_>) {
    if let Some(simulation) = current() {
        simulation.effect(effect);
    }
}
