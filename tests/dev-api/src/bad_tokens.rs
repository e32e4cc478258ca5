//! Access tokens that no client may accept, each wrong in one way.

use super::hashing::random_hex;
use super::keys::SigningKey;
use super::tokens::{Claims, Mint, encode};
use super::{Generation, hashing::random};
use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};

/// The fault of an access token; everything else is as in a valid one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadToken {
    /// `"alg":"none"` and no signature.
    AlgNone,
    /// This algorithm in the header, and no signature.
    Unsigned(&'static str),
    /// Well signed, with this further member of the header, given as JSON (`"crit":["b64"]`).
    Header(&'static str),
    /// Well signed, with this further member before all claims, given as JSON (`"role":"ApiAdmin"`).
    Member(&'static str),
    /// Well signed, with this value of one claim.
    Claim(&'static str, Value),
    /// HS256 with the PEM of the published key as the secret, under that key's id.
    KeyConfusionPem,
    /// HS256 with the point of the published key as the secret, under that key's id.
    KeyConfusionPoint,
    /// Well signed, but under a key id that is not listed.
    UnknownKid,
    /// Well signed, but without a key id.
    NoKid,
    /// Under the key id that is listed, but signed by another key.
    ForeignKey,
    /// One bit of the signature is flipped.
    TamperedSignature,
    /// The expiry was moved after signing.
    TamperedPayload,
    /// Another issuer.
    WrongIssuer,
    /// Another audience.
    WrongAudience,
    /// This role.
    WrongRole(String),
    /// No role claim.
    NoRole,
    /// This e-mail.
    WrongEmail(String),
    /// No e-mail claim.
    NoEmail,
    /// Expired so many seconds ago.
    Expired(u64),
    /// Issued and valid only so many seconds from now.
    FromFuture(u64),
    /// No expiry.
    NoExp,
    /// A string without a dot.
    NotAJwt,
    /// Header and payload, no signature part.
    TwoParts,
    /// A JSON number where the token should be.
    NumberInsteadOfString,
    /// An empty string.
    Empty,
    /// No token field at all.
    Missing,
    /// These roles in an array, as .NET writes more than one.
    RolesArray(Vec<String>),
    /// Well signed ES384 by a key of its own, under the key id that is listed.
    OtherAlgorithm,
    /// HS256 with the server's secret and no key id: the good token of a G1 server.
    Hs256,
}

impl BadToken {
    /// Creates the token from the claims of a valid one; `None` omits the field.
    pub(super) fn forge(&self, mint: &Mint<'_>, claims: Claims) -> anyhow::Result<Option<Value>> {
        let token: Value = match self {
            Self::Missing => return Ok(None),
            Self::NumberInsteadOfString => 12345.into(),
            Self::Empty => "".into(),
            Self::NotAJwt => "not-a-token".into(),
            Self::AlgNone
            | Self::Unsigned(_)
            | Self::Header(_)
            | Self::Member(_)
            | Self::TwoParts
            | Self::TamperedPayload
            | Self::TamperedSignature => self.reassemble(mint, claims)?.into(),
            Self::KeyConfusionPem
            | Self::KeyConfusionPoint
            | Self::UnknownKid
            | Self::NoKid
            | Self::ForeignKey
            | Self::OtherAlgorithm
            | Self::Hs256 => self.resign(mint, &claims)?.into(),
            _ => mint.sign(&self.twist(mint, claims))?.into(),
        };
        Ok(Some(token))
    }

    /// Returns the wrong claims, which are then signed correctly.
    fn twist(&self, mint: &Mint<'_>, mut claims: Claims) -> Claims {
        let names = mint.options.claims.names();
        let seconds = |s: &u64| i64::try_from(*s).unwrap_or(i64::MAX);
        let starting = |at: i64| {
            let end = at.saturating_add(mint.lifetime());
            vec![("iat", at.into()), ("nbf", at.into()), ("exp", end.into())]
        };
        let changes: Vec<(&str, Value)> = match self {
            Self::Claim(name, value) => vec![(name, value.clone())],
            Self::WrongIssuer => vec![("iss", "SomebodyElse".into())],
            Self::WrongAudience => vec![("aud", "SomethingElse".into())],
            Self::WrongRole(role) => vec![(names.role, role.as_str().into())],
            Self::RolesArray(roles) => vec![(names.role, json!(roles))],
            Self::NoRole => vec![(names.role, Value::Null)],
            Self::WrongEmail(email) => vec![(names.email, email.as_str().into())],
            Self::NoEmail => vec![(names.email, Value::Null)],
            Self::NoExp => vec![("exp", Value::Null)],
            Self::Expired(ago) => starting(mint.now - mint.lifetime() - seconds(ago)),
            Self::FromFuture(ahead) => starting(mint.now.saturating_add(seconds(ahead))),
            _ => Vec::new(),
        };
        for (name, value) in changes {
            match value {
                Value::Null => drop(claims.remove(name)),
                value => drop(claims.insert(name.to_owned(), value)),
            }
        }
        claims
    }

    /// Signs the correct claims with a wrong signature or key id.
    fn resign(&self, mint: &Mint<'_>, claims: &Claims) -> anyhow::Result<String> {
        let listed = &mint.keys.current;
        let kid = Some(listed.kid.as_str());
        let hmac = |kid, secret: &[u8]| encode(Algorithm::HS256, kid, claims, &EncodingKey::from_secret(secret));
        match self {
            Self::KeyConfusionPem => hmac(kid, listed.public_pem.as_bytes()),
            Self::KeyConfusionPoint => hmac(kid, &listed.public_point),
            Self::UnknownKid => mint.sign_with_kid(claims, Some(&random_hex::<8>()?)),
            Self::NoKid => mint.sign_with_kid(claims, None),
            Self::ForeignKey if mint.options.generation == Generation::G1 => hmac(None, &random::<64>()?),
            Self::ForeignKey => {
                let foreign = SigningKey::generate()?.private;
                encode(Algorithm::ES256, kid, claims, &foreign)
            }
            Self::OtherAlgorithm => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
                let foreign = EncodingKey::from_ec_der(&pair.serialize_der());
                encode(Algorithm::ES384, kid, claims, &foreign)
            }
            _ => hmac(None, &mint.keys.secret),
        }
    }

    /// Takes a valid token apart and joins its parts incorrectly.
    fn reassemble(&self, mint: &Mint<'_>, mut claims: Claims) -> anyhow::Result<String> {
        let good = mint.sign(&claims)?;
        let (signed, signature) = good.rsplit_once('.').context("a token has dots")?;
        let (header, payload) = signed.split_once('.').context("a token has two dots")?;
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        Ok(match self {
            Self::AlgNone => format!("{}.{payload}.", part(&json!({"alg": "none", "typ": "JWT", "kid": mint.kid()}))),
            Self::Unsigned(alg) => format!("{}.{payload}.", part(&json!({"alg": alg, "kid": mint.kid()}))),
            Self::Header(member) => {
                let kid = mint.kid().unwrap_or_default();
                let header = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"ES256\",\"kid\":\"{kid}\",{member}}}"));
                let signed = format!("{header}.{payload}");
                let signature = sign(signed.as_bytes(), &mint.keys.current.private, Algorithm::ES256)?;
                format!("{signed}.{signature}")
            }
            Self::Member(member) => {
                let claims = Value::from(claims).to_string();
                let claims = claims.strip_prefix('{').context("claims are an object")?;
                let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(format!("{{{member},{claims}")));
                let signature = sign(signed.as_bytes(), &mint.keys.current.private, Algorithm::ES256)?;
                format!("{signed}.{signature}")
            }
            Self::TamperedPayload => {
                let later = mint.now.saturating_add(mint.lifetime()).saturating_add(60);
                claims.insert("exp".to_owned(), later.into());
                format!("{header}.{}.{signature}", part(&claims.into()))
            }
            Self::TamperedSignature => {
                let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
                bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
            }
            _ => signed.to_owned(),
        })
    }
}
