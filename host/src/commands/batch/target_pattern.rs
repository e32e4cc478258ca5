//! Expands `--rootfs` of a batch to the targets of each device.

use crate::error::{Result, failure};
use std::path::PathBuf;

use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::Serial;

const SERIAL: &str = "{serial}";

/// Paths with the placeholder `{serial}`.
#[derive(Debug)]
pub(super) struct TargetPatterns(Vec<String>);

impl TargetPatterns {
    /// Validates the patterns for a number of devices.
    ///
    /// # Errors
    /// 64 if several devices would share a target.
    pub(super) fn new(texts: &[String], devices: usize) -> Result<Self> {
        if let Some(same) = texts.iter().find(|text| devices > 1 && !text.contains(SERIAL)) {
            return Err(failure(
                Exit::Usage,
                format!("each device needs its own target; put {SERIAL} into --rootfs {same}"),
            ));
        }
        Ok(Self(texts.to_vec()))
    }

    /// Returns the targets of one device.
    pub(super) fn of(&self, serial: &Serial) -> Vec<PathBuf> {
        self.0.iter().map(|text| PathBuf::from(text.replace(SERIAL, serial.as_str()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: no two devices share a target.
    #[test]
    fn each_device_has_its_own_target() {
        let texts = ["out/{serial}/APP.img".to_owned(), "out/{serial}/APP_b.img".to_owned()];
        let serial: Serial = "AZJN-7".parse().unwrap();
        let expected = ["out/AZJN-7/APP.img", "out/AZJN-7/APP_b.img"].map(PathBuf::from);
        assert_eq!(TargetPatterns::new(&texts, 2).unwrap().of(&serial), expected);
        let texts = ["rootfs".to_owned()];
        assert!(TargetPatterns::new(&texts, 2).is_err());
        assert_eq!(TargetPatterns::new(&texts, 1).unwrap().of(&serial), [PathBuf::from("rootfs")]);
    }
}
