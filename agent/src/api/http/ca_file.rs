//! CA certificates in addition to the public roots.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::HttpError;

/// Maximum size of a CA file in bytes; all of Mozilla's roots have 220,000.
const LARGEST_CA_FILE: u64 = 4 * 1024 * 1024;

/// A file with CA certificates (PEM).
#[derive(Clone, Debug)]
pub struct CaFile {
    path: PathBuf,
    pem: Vec<u8>,
}

impl CaFile {
    /// Reads a CA file.
    ///
    /// # Errors
    /// [`HttpError::CaFile`].
    pub fn read(path: &Path) -> Result<Self, HttpError> {
        // O_NONBLOCK: a FIFO at this path must not block the boot.
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        Self::read_from(file, path)
    }

    /// Reads a CA file from the result of opening it; `path` is used in messages.
    ///
    /// # Errors
    /// [`HttpError::CaFile`].
    pub fn read_from(file: io::Result<File>, path: &Path) -> Result<Self, HttpError> {
        let mut pem = Vec::new();
        let fail = |source| HttpError::CaFile { path: path.to_owned(), source };
        file.and_then(|file| file.take(LARGEST_CA_FILE + 1).read_to_end(&mut pem)).map_err(fail)?;
        if pem.len() as u64 > LARGEST_CA_FILE {
            let message =
                format!("it is larger than {} MiB; keep only the certificates that are needed", LARGEST_CA_FILE >> 20);
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
        Ok(Self { path: path.to_owned(), pem })
    }

    /// Adds the certificates to the roots.
    pub(super) fn add_to(&self, roots: &mut RootCertStore) -> Result<(), HttpError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.pem).collect();
        let (added, _) = roots.add_parsable_certificates(certificates.unwrap_or_default());
        if added == 0 {
            return Err(HttpError::NoCertificate { path: self.path.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::api::fault::chain;

    // Promise: a CA file without a certificate, one that can't be read, and one that is too large are different errors; none is
    // ignored or cut.
    #[test]
    fn bad_ca_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("ca.pem"), dir.path().join("missing"));
        let mut roots = RootCertStore::empty();
        for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
            assert!(
                matches!(CaFile::read(&file).unwrap().add_to(&mut roots), Err(HttpError::NoCertificate { .. })),
                "{text}"
            );
        }
        assert!(matches!(CaFile::read(&missing), Err(HttpError::CaFile { .. })));
        // A file that was cut could lack the certificate that is needed.
        let large = File::options().write(true).open(&file).unwrap();
        large.set_len(LARGEST_CA_FILE).unwrap();
        CaFile::read(&file).unwrap();
        large.set_len(LARGEST_CA_FILE + 1).unwrap();
        let error = chain(&CaFile::read(&file).unwrap_err());
        assert!(error.contains(&file.display().to_string()) && error.contains("larger than 4 MiB"), "{error}");
        assert!(roots.is_empty());
    }
}
