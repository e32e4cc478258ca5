//! Passwords as Argon2id hashes, and random bytes.

use super::Hashing;
use anyhow::{Context as _, anyhow};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryRng as _;
use rand::rngs::SysRng;
use std::fmt::Write as _;

impl Hashing {
    /// Memory in KiB and number of passes; always one lane.
    fn costs(self) -> (u32, u32) {
        match self {
            Self::Real => (19 * 1024, 2),
            Self::Cheap => (Params::MIN_M_COST, Params::MIN_T_COST),
        }
    }

    /// Hashes a password with a fresh salt and returns a PHC string.
    pub(super) fn hash(self, password: &str) -> anyhow::Result<String> {
        let (memory, passes) = self.costs();
        let params = Params::new(memory, passes, 1, None).map_err(|error| anyhow!("Argon2 parameters: {error}"))?;
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password(password.as_bytes())
            .map_err(|error| anyhow!("hashing a password: {error}"))?;
        Ok(hash.to_string())
    }
}

/// Returns whether the password matches the hash, with the parameters in the hash.
pub(super) fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Returns bytes from the system's random source.
pub(super) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).context("reading the system's random source")?;
    Ok(bytes)
}

/// Returns a random GUID as .NET writes it (RFC 9562, version 4).
pub(super) fn random_guid() -> anyhow::Result<String> {
    let bits = u128::from_be_bytes(random()?) & !(0xF << 76 | 0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let group = |start, end| hex.get(start..end).unwrap_or_default();
    Ok([(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(start, end)| group(start, end)).join("-"))
}

/// Returns `2 * N` random hexadecimal digits.
pub(super) fn random_hex<const N: usize>() -> anyhow::Result<String> {
    Ok(random::<N>()?.iter().fold(String::with_capacity(2 * N), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash is Argon2id with the specified parameters, verifies its password and no other, and two hashes of one
    /// password differ (each has its own salt).
    #[test]
    fn hashes() {
        for (hashing, start) in
            [(Hashing::Real, "$argon2id$v=19$m=19456,t=2,p=1$"), (Hashing::Cheap, "$argon2id$v=19$m=8,t=1,p=1$")]
        {
            let hash = hashing.hash("secret-1").unwrap();
            assert!(hash.starts_with(start), "{hash}");
            assert!(verify("secret-1", &hash));
            assert!(!verify("secret-2", &hash));
            assert_ne!(hash, hashing.hash("secret-1").unwrap());
        }
        assert!(!verify("secret-1", "not a hash"));
    }
}
