//! A target in memory, whose reads and writes are effects of the script.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use azaion_agent::common::device_conf::MODE;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::super::effects::{Op, Seen};
use super::super::flaws::Flaw;
use super::super::world::File;
use super::{PASSWORD_KEY, Script};
use crate::target::template::Template;
use crate::target::{Error, Found, Kind, Owner, Result, Target};

/// Mode of a file that this tool has not written.
const MODE_OF_OTHERS: u32 = 0o644;

/// A target in memory.
#[derive(Debug)]
pub(in crate::model) struct MemoryTarget {
    pub(in crate::model) script: Arc<Script>,
    pub(in crate::model) index: usize,
    pub(in crate::model) path: PathBuf,
}

impl Target for MemoryTarget {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> Kind {
        Kind::Ext4
    }

    fn may_write(&self, _owner: Owner) -> Result<()> {
        Ok(())
    }

    fn remove_leftovers(&self) -> Result<()> {
        Ok(())
    }

    fn read_conf(&self) -> Result<Option<Found>> {
        let Seen::File(file) = self.script.observe(Op::Read(self.index)) else { panic!("not a result of a read") };
        let is_hidden = |file: &File| self.script.flaw == Some(Flaw::DrawsAgain) && file.password().is_some();
        Ok(file.filter(|file| !is_hidden(file)).map(|file| Found {
            bytes: Zeroizing::new(file.text.as_bytes().to_vec()),
            mode: if file.is_doubtful { MODE_OF_OTHERS } else { MODE },
            uid: 0,
            gid: 0,
        }))
    }

    fn is_in_order(&self, found: &Found, _owner: Owner) -> Result<bool> {
        Ok(found.mode == MODE)
    }

    fn write(&self, conf: &SecretString, _owner: Owner) -> Result<()> {
        let text = conf.expose_secret();
        if self.script.flaw == Some(Flaw::NoIntent) && !text.contains(PASSWORD_KEY) {
            return Ok(());
        }
        self.script.put(self.index, Some(self.script.file(text.as_bytes(), MODE)))
    }

    fn history(&self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn template(&self) -> Result<Template> {
        Err(Error::Internal("the model copies no target".into()))
    }

    fn restore(&self, before: Option<&Found>) -> Result<()> {
        if self.script.flaw == Some(Flaw::NeverRestores) {
            return Ok(());
        }
        self.script.put(self.index, before.map(|found| self.script.file(&found.bytes, found.mode)))
    }

    fn clear(&self) -> Result<bool> {
        self.script.put(self.index, None).map(|()| true)
    }
}
