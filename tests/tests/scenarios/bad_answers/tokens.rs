//! The tables of bad tokens in otherwise valid answers.

use azaion_tests::dev_api::{BadToken, Generation};
use serde_json::{Value, json};

use super::{Row, token};

const ROLE_URI: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";

pub(super) fn tokens() -> Vec<Row> {
    use BadToken as Bad;
    let roles = |list: &[&str]| Bad::RolesArray(list.iter().map(|role| (*role).to_owned()).collect());
    let audience = "audience = \"AzaionDevices\"\n";
    vec![
        token(Bad::AlgNone, 76, "algorithm"),
        token(Bad::Unsigned("None"), 76, "algorithm"),
        token(Bad::Unsigned("nOnE"), 76, "algorithm"),
        token(Bad::Unsigned(""), 76, "algorithm"),
        token(Bad::Unsigned("es256"), 76, "algorithm"),
        token(Bad::Unsigned("RS256"), 76, "algorithm"),
        token(Bad::Unsigned("EdDSA"), 76, "algorithm"),
        token(Bad::Unsigned("ES256"), 76, "signature is wrong"),
        token(Bad::Unsigned("HS512"), 76, "shared secret"),
        token(Bad::KeyConfusionPem, 76, "shared secret"),
        token(Bad::KeyConfusionPoint, 76, "shared secret"),
        token(Bad::Hs256, 76, "shared secret"),
        token(Bad::UnknownKid, 76, "key id"),
        token(Bad::ForeignKey, 76, "signature is wrong"),
        token(Bad::TamperedSignature, 76, "signature is wrong"),
        token(Bad::TamperedPayload, 76, "signature is wrong"),
        token(Bad::OtherAlgorithm, 76, "algorithm"),
        token(Bad::WrongIssuer, 76, "issuer"),
        Row { policy: audience, ..token(Bad::WrongAudience, 76, "audience") },
        token(Bad::WrongRole("ApiAdmin".into()), 76, "role"),
        token(Bad::NoRole, 76, "role"),
        token(roles(&["CompanionPC", "ApiAdmin"]), 76, "role"),
        token(roles(&[]), 76, "role"),
        token(Bad::WrongEmail("azaion-jetson-0043@azaion.com".into()), 76, "e-mail"),
        token(Bad::NoEmail, 76, "e-mail"),
        token(Bad::Expired(60), 76, "expired"),
        // Within the skew, but expired by the server's own time.
        token(Bad::Expired(20), 76, "expired"),
        token(Bad::Expired(0), 76, "expired"),
        token(Bad::FromFuture(60), 76, "not valid yet"),
        token(Bad::NoExp, 76, "expires"),
        token(Bad::NotAJwt, 76, "not a JWT"),
        token(Bad::TwoParts, 76, "not a JWT"),
        token(Bad::Empty, 76, "not a JWT"),
        token(Bad::NumberInsteadOfString, 76, "token"),
        token(Bad::Missing, 76, "no token"),
        // Signed with the right key, but not a device's token. A duplicate claim is refused, though the last one is
        // correct; the same name in a nested object is fine.
        token(Bad::Member("\"role\":\"ApiAdmin\""), 76, "duplicate name"),
        token(Bad::Member("\"r\\u006fle\":\"CompanionPC\""), 76, "duplicate name"),
        token(Bad::Member("\"exp\":9999999999"), 76, "duplicate name"),
        token(Bad::Member("\"new\":{\"a\":1,\"a\":1}"), 76, "duplicate name"),
        token(Bad::Member("\"new\":{\"role\":1}"), 0, ""),
        token(Bad::Header("\"x\":{\"a\":1,\"a\":1}"), 76, "duplicate name"),
        token(Bad::Claim("iss", json!(["AzaionApi"])), 76, "issuer"),
        token(Bad::Claim("iss", "azaionapi".into()), 76, "issuer"),
        token(Bad::Claim("iss", Value::Null), 76, "issuer"),
        token(Bad::Claim("role", "companionpc".into()), 76, "role"),
        token(Bad::Claim("role", 30.into()), 76, "role"),
        token(Bad::Claim("role", json!({"CompanionPC": true})), 76, "role"),
        token(Bad::Claim(ROLE_URI, "ApiAdmin".into()), 76, "role"),
        token(Bad::Claim("email", "azaion-jetson-0043@azaion.com".into()), 76, "e-mail"),
        token(Bad::Claim("unique_name", "azaion-jetson-0042@azaion.com ".into()), 76, "e-mail"),
        token(Bad::Claim("exp", "soon".into()), 76, "claims"),
        token(Bad::Claim("exp", (-1).into()), 76, "claims"),
        token(Bad::Claim("exp", 0.into()), 76, "expired"),
        token(Bad::Claim("exp", json!(1e300)), 76, "claims"),
        token(Bad::Claim("nbf", 4_000_000_000_u64.into()), 76, "not valid yet"),
        token(Bad::Claim("iat", 4_000_000_000_u64.into()), 76, "not valid yet"),
        token(Bad::Claim("nbf", "now".into()), 76, "claims"),
        Row { policy: audience, ..token(Bad::Claim("aud", json!(["Others", 7])), 76, "audience") },
        Row { policy: audience, ..token(Bad::Claim("aud", Value::Null), 76, "audience") },
        Row { policy: audience, ..token(Bad::Claim("aud", json!(["Others", "AzaionDevices"])), 0, "") },
        // Keys that come with the token prove nothing: the published one has signed these.
        token(Bad::Header("\"jwk\":{\"kty\":\"oct\",\"k\":\"AQAB\"}"), 0, ""),
        token(Bad::Header("\"jku\":\"https://hush.example/keys\""), 0, ""),
        token(Bad::Header("\"crit\":[\"b64\"],\"b64\":false"), 76, "(crit)"),
        token(Bad::Header("\"crit\":[]"), 76, "(crit)"),
        // Unusual, but still a device's token: no key id with a matching listed key, one role in a list, an audience
        // that no policy requires, a start within the skew.
        token(Bad::NoKid, 0, ""),
        token(roles(&["CompanionPC"]), 0, ""),
        token(Bad::WrongAudience, 0, ""),
        token(Bad::FromFuture(10), 0, ""),
    ]
}

pub(super) fn older_tokens() -> Vec<Row> {
    use BadToken as Bad;
    let g1 = |bad, says| Row { generation: Generation::G1, ..token(bad, 76, says) };
    vec![
        g1(Bad::AlgNone, "algorithm"),
        g1(Bad::WrongIssuer, "issuer"),
        g1(Bad::WrongRole("ApiAdmin".into()), "role"),
        g1(Bad::WrongEmail("azaion-jetson-0043@azaion.com".into()), "e-mail"),
        g1(Bad::Expired(60), "expired"),
        g1(Bad::NoExp, "expires"),
        Row { policy: "signature = \"required\"\n", ..g1(Bad::Hs256, "required") },
        Row { code: 0, ..g1(Bad::Hs256, "") },
        Row { policy: "audience = \"Annotators/OrangePi/Admins\"\n", ..g1(Bad::WrongAudience, "audience") },
    ]
}
