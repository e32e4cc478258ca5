//! The development CA and the server certificates of every kind.

use super::Tls;
use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What the certificate is valid for: this machine, and this machine as an emulated one sees it, by address and name.
const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "::1", "10.0.2.2", "admin.azaion.test"];

const DAY: Duration = Duration::from_hours(24);

/// A certificate authority of our own.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, valid from 2000 to 2100, so that no clock of a test leaves it.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Azaion development CA");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("making the key of the CA")?;
        let issuer = CertifiedIssuer::self_signed(params, key).context("making the CA")?;
        Ok(Self(issuer))
    }

    /// Writes the CA as PEM; a reader sees the old or the new one, never a part.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().unwrap_or(path);
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("making a file in {}", folder.display()))?;
        file.write_all(self.0.pem().as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("writing {}", path.display()))?;
        file.persist(path).with_context(|| format!("writing {}", path.display()))?;
        Ok(())
    }

    /// The TLS side of the server; `None` for plain http.
    pub(super) fn server_config(&self, tls: Tls) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        let now = SystemTime::now();
        let (not_before, not_after) = match tls {
            Tls::Plain => return Ok(None),
            Tls::Valid | Tls::SelfSigned | Tls::WrongName => (now - 30 * DAY, now + 60 * DAY),
            Tls::Expired => (now - 91 * DAY, now - DAY),
            Tls::NotYetValid => (now + DAY, now + 91 * DAY),
            Tls::Window { not_before, not_after } => (not_before, not_after),
        };
        let names = match tls {
            Tls::WrongName => vec!["wrong.example".to_owned()],
            _ => NAMES.map(str::to_owned).to_vec(),
        };
        let mut params = CertificateParams::new(names).context("naming the server")?;
        params.distinguished_name = name("Azaion development admin API");
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().context("making the server's key")?;
        let certificate = match tls {
            Tls::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.0),
        }
        .context("signing the server's certificate")?;
        configure(certificate.into(), &key).map(Some)
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// TLS 1.2 and 1.3 with HTTP/1.1. Each configuration has its own session cache, so no session
/// outlives a renewed certificate.
fn configure(certificate: CertificateDer<'static>, key: &KeyPair) -> anyhow::Result<Arc<ServerConfig>> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .context("configuring TLS")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
