//! A value that is computed when it is first needed, and may fail to be.

use crate::target::error::Result;
use std::cell::OnceCell;

/// The value in the cell, or the one that `make` gives; an error is not kept.
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
