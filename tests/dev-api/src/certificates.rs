//! The development CA and server certificates of every kind.

use super::Tls;
use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The names and addresses in the certificate: this machine, and this machine as an emulated one reaches it.
const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "::1", "10.0.2.2", "admin.azaion.test"];

const DAY: Duration = Duration::from_hours(24);

/// A certificate authority for tests.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Creates a CA valid from 2000 to 2100, so that the clock of every test is within its validity.
    pub(super) fn new() -> anyhow::Result<Self> {
        let params = authority_params("Azaion development CA");
        let key = KeyPair::generate().context("creating the key of the CA")?;
        let issuer = CertifiedIssuer::self_signed(params, key).context("creating the CA")?;
        Ok(Self(issuer))
    }

    /// Writes the CA as PEM, atomically.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().unwrap_or(path);
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("creating a file in {}", folder.display()))?;
        file.write_all(self.0.pem().as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("writing {}", path.display()))?;
        file.persist(path).with_context(|| format!("writing {}", path.display()))?;
        Ok(())
    }

    /// Returns the TLS configuration of the server; `None` for plain HTTP.
    pub(super) fn server_config(&self, tls: Tls) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        if tls == Tls::Plain || tls.is_mute() {
            return Ok(None);
        }
        let params = server_params(tls)?;
        let key = KeyPair::generate().context("creating the server's key")?;
        let below = match tls {
            Tls::Chain | Tls::BrokenChain => Some(self.authority_below()?),
            _ => None,
        };
        let certificate = match (tls, &below) {
            (Tls::SelfSigned | Tls::SelfSignedCa, _) => params.self_signed(&key),
            (Tls::UnknownCa | Tls::ForgedWindow { .. }, _) => params.signed_by(&key, &Self::new()?.0),
            (_, Some(below)) => params.signed_by(&key, below),
            (_, None) => params.signed_by(&key, &self.0),
        }
        .context("signing the server's certificate")?;
        let sent = below.filter(|_| tls == Tls::Chain).map(|below| below.der().clone());
        configure([certificate.into()].into_iter().chain(sent).collect(), &key, self.verifier(tls)?).map(Some)
    }

    /// Returns the verifier of client certificates, if the server asks for one.
    fn verifier(&self, tls: Tls) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
        if tls != Tls::AsksForCertificate {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Some(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?))
    }

    /// Creates a CA signed by this one.
    fn authority_below(&self) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
        let mut params = authority_params("Azaion development CA, issuing");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().context("creating the key of the intermediate CA")?;
        CertifiedIssuer::signed_by(params, key, &self.0).context("creating the intermediate CA")
    }
}

fn authority_params(common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Returns the parameters of the server's certificate: names, usage and validity.
fn server_params(tls: Tls) -> anyhow::Result<CertificateParams> {
    let now = SystemTime::now();
    let (not_before, not_after) = match tls {
        Tls::Expired => (now - 91 * DAY, now - DAY),
        Tls::NotYetValid => (now + DAY, now + 91 * DAY),
        Tls::Window { not_before, not_after }
        | Tls::ForgedWindow { not_before, not_after }
        | Tls::ForeignWindow { not_before, not_after } => (not_before, not_after),
        _ => (now - 30 * DAY, now + 60 * DAY),
    };
    let names = match tls {
        Tls::WrongName | Tls::ForeignWindow { .. } => vec!["wrong.example".to_owned()],
        Tls::WrongAddress => vec!["192.0.2.1".to_owned()],
        Tls::Names(names) => names.iter().map(|name| (*name).to_owned()).collect(),
        Tls::CommonName => Vec::new(),
        _ => NAMES.map(str::to_owned).to_vec(),
    };
    let mut params = CertificateParams::new(names).context("naming the server")?;
    params.distinguished_name = name(if tls == Tls::CommonName { "127.0.0.1" } else { "Azaion development admin API" });
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match tls {
        Tls::ForClients => ExtendedKeyUsagePurpose::ClientAuth,
        _ => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    if matches!(tls, Tls::LeafIsCa | Tls::SelfSignedCa) {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// TLS 1.2 and 1.3 with HTTP/1.1. Each configuration has its own session cache, so no session outlives a renewed
/// certificate.
fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> anyhow::Result<Arc<ServerConfig>> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_single_cert(chain, key.into())
        .context("configuring TLS")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
