//! Fallible lazy initialization of a `OnceCell`.

use crate::target::error::Result;
use std::cell::OnceCell;

/// Returns the value in the cell, which `make` computes on the first call. An error is not stored; the next call tries again.
///
/// # Errors
/// Those of `make`.
pub(super) fn get_or_try_init<T, E>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}
