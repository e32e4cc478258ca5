//! The tables of bad answers to the agent's login and to its request for keys.

use std::time::{Duration, SystemTime};

use azaion_tests::dev_api::Fault;

use super::{Row, answer, body, keys, login, portal, status, status_with};

pub(super) fn statuses() -> Vec<Row> {
    let permanent = [
        (201, None, 76, "201"),
        (204, None, 76, "204"),
        (206, None, 76, "206"),
        (400, None, 76, "400"),
        (400, Some(35), 76, "400"),
        (404, None, 76, "URL"),
        (405, None, 76, "405"),
        (406, None, 76, "406"),
        (409, None, 76, "409"),
        (409, Some(20), 76, "409"),
        (410, None, 76, "410"),
        (413, None, 76, "413"),
        (415, None, 76, "415"),
        (418, None, 76, "418"),
        (422, None, 76, "422"),
        (451, None, 76, "451"),
        // Not an error object of the API.
        (401, None, 76, "not an error of the API"),
        (403, None, 76, "not an error of the API"),
        (401, Some(52), 76, "401"),
        (403, Some(54), 76, "403"),
        (401, Some(70), 77, "credentials are refused"),
        (403, Some(70), 77, "credentials are refused"),
        (404, Some(10), 77, "no account"),
        (400, Some(37), 77, "no account"),
        (409, Some(37), 77, "no account"),
        (409, Some(10), 77, "no account"),
        (409, Some(30), 77, "password is wrong"),
        (409, Some(38), 77, "disabled"),
    ];
    let transient =
        [408, 425, 500, 501, 502, 503, 504, 505, 511, 599].map(|code| (code, None, 75, "temporarily unavailable"));
    let limits = [(423, Some(50), 75, "locked"), (423, None, 75, "locked"), (429, Some(51), 75, "too many logins")];
    let proxies =
        [(407, None, 75, "a proxy requires its own login"), (407, Some(30), 75, "a proxy requires its own login")];
    let rows = permanent.into_iter().chain(transient).chain(limits).chain(proxies);
    rows.map(|(code, error, exit, says)| login(status(code, error), exit, says)).collect()
}

pub(super) fn headers() -> Vec<Row> {
    let waits =
        |code, value| Row { logins: 1..=1, ..login(status_with(code, "Retry-After", value), 75, "asks to wait") };
    let redirect = |code| login(status_with(code, "Location", "/elsewhere"), 76, "redirect");
    let in_ten_minutes = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(10));
    let twice = ["600", "0"].map(|value| ("Retry-After".into(), value.into())).to_vec();
    let twice = Fault::Status { code: 503, error: None, headers: twice };
    let page = Fault::Answer {
        status: 302,
        content_type: "text/html".into(),
        body: "<html>hush</html>".into(),
        headers: vec![("Location".into(), "https://hush.example/portal".into())],
    };
    // A wait in both forms, one that is too long, and an invalid one: the run ends without another call.
    let waited_for = [
        "600",
        "99999999999999999999",
        "Tue, 31 Dec 2199 23:59:59 GMT",
        "Tue Dec 31 23:59:59 2199",
        &in_ten_minutes,
        "soon",
        "",
        "-1",
        "1.5",
        "1e3",
        "0x10",
        "600;",
        "\u{a0}7",
    ];
    // No wait, or one in the past: tried again as after any other failure.
    let over =
        ["0", " 0 ", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
    let over = over.map(|value| login(status_with(503, "Retry-After", value), 75, "503"));
    // A wait does not change how a permanent failure is handled.
    let for_good = [(400, 76, "400"), (403, 76, "403"), (404, 76, "404"), (409, 76, "409")];
    let for_good = for_good.map(|(code, exit, says)| login(status_with(code, "Retry-After", "1"), exit, says));
    let others = [
        login(status_with(401, "Retry-After", "0"), 75, "401"),
        login(status_with(401, "Retry-After", "soon"), 75, "asks to wait"),
        waits(401, "600"),
        waits(423, "600"),
        waits(429, "600"),
        Row { logins: 1..=1, ..login(twice, 75, "asks to wait") },
        login(status(302, None), 76, "redirect"),
        login(status_with(302, "Location", "//hush.example/login"), 76, "redirect"),
        login(status_with(301, "Retry-After", "1"), 76, "redirect"),
        login(page, 76, "redirect"),
        login(Fault::Redirect("/login".into()), 76, "redirect"),
        login(Fault::Redirect("/elsewhere".into()), 76, "redirect"),
        login(Fault::Redirect("http://hush.example/login".into()), 76, "redirect"),
    ];
    let redirects = [300, 301, 302, 303, 304, 305, 308].map(redirect);
    let rows = waited_for.into_iter().map(|value| waits(503, value)).chain(over).chain(for_good);
    rows.chain(others).chain(redirects).collect()
}

/// Pages with the statuses that have a meaning only in the API's error object.
pub(super) fn pages() -> Vec<Row> {
    let page = |status, exit, says| {
        let body = "<html><body>hush: please log in to the hotel's network</body></html>".to_owned();
        login(Fault::Answer { status, content_type: "text/html".into(), body, headers: Vec::new() }, exit, says)
    };
    let all = [401, 403, 409].map(|status| page(status, 76, "a web page came instead"));
    all.into_iter()
        .chain([page(407, 75, "a proxy requires its own login"), page(404, 76, "404"), page(503, 75, "503")])
        .collect()
}

pub(super) fn bodies() -> Vec<Row> {
    let no_json = ["", "hush", "{\"token\":\"hush\"} more", "404 page not found", "[{\"hush\""].map(body);
    let no_login = ["[]", "null", "7", "\"hush\"", "{}", "{\"token\":null}", "{\"token\":12345}", "{\"token\":{}}"];
    let no_json = no_json.into_iter().chain([portal()]).map(|fault| login(fault, 75, "is not JSON"));
    // Input on which a JSON parser may fail, and almost valid input.
    let broken = [
        "\u{feff}{\"token\":\"hush\"}",
        "{'token':'hush'}",
        "{\"token\":\"hush\",}",
        "{\"token\":NaN}",
        "<?xml version=\"1.0\"?><token>hush</token>",
        "token=hush",
        &"[".repeat(60_000),
    ];
    let broken = broken.map(|text| login(body(text), 75, "is not JSON"));
    let twisted = [
        "true",
        "[{\"token\":\"hush\"}]",
        "{\"token\":true}",
        "{\"token\":\"\\ud800\"}",
        "{\"token\":[\"hush\"]}",
        "{\"TOKEN\":\"hush\"}",
        "{\"data\":{\"token\":\"hush\"}}",
        "{\"token\":\"hush\",\"token\":\"hush\"}",
        "{\"accessToken\":\"hush\",\"refreshToken\":7}",
        "{\"errorCode\":30,\"message\":\"hush\"}",
    ];
    let twisted = twisted.map(|text| login(body(text), 76, "token"));
    // The content type proves nothing, in either direction.
    let mislabelled = [
        login(answer("text/html", "{}"), 76, "token"),
        login(answer("application/json", "  <html>hush</html>"), 75, "captive portal"),
        login(answer("", ""), 75, "is not JSON"),
    ];
    let no_login = no_login.into_iter().map(|text| login(body(text), 76, "token"));
    let mfa = login(body("{\"mfa_required\":true,\"mfa_token\":\"hush\",\"expires_in\":300}"), 77, "second factor");
    let large = [Fault::Huge(1_000_000), Fault::Endless].map(|fault| login(fault, 75, "larger than"));
    let more = broken.into_iter().chain(twisted).chain(mislabelled);
    no_json.chain(no_login).chain(large).chain([mfa]).chain(more).collect()
}

pub(super) fn connections() -> Vec<Row> {
    vec![
        login(Fault::DropBefore, 75, "closed before the answer"),
        login(Fault::DropAfter, 75, "closed before the answer"),
        login(Fault::Truncate, 75, "closed before the answer"),
        login(Fault::Hang, 75, "no answer in time"),
        login(Fault::Delay(Duration::from_mins(1)), 75, "no answer in time"),
        login(Fault::Drip(Duration::from_millis(300)), 75, "no answer in time"),
    ]
}

pub(super) fn key_sets() -> Vec<Row> {
    let rsa = r#"{"keys":[{"kty":"RSA","kid":"a","use":"sig","alg":"RS256","n":"AQAB","e":"AQAB"}]}"#;
    // A shared secret among the keys would let everybody sign; a point off the curve, nobody.
    let secret = r#"{"keys":[{"kty":"oct","kid":"a","alg":"HS256","k":"AQAB"}]}"#;
    let curve = r#"{"keys":[{"kty":"EC","crv":"P-384","use":"sig","alg":"ES384","x":"AQAB","y":"AQAB"}]}"#;
    let point = r#"{"keys":[{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","x":"AQAB","y":"AQAB"}]}"#;
    let encryption = r#"{"keys":[{"kty":"EC","crv":"P-256","use":"enc","x":"AQAB","y":"AQAB"}]}"#;
    let signing = r#"{"keys":[{"kty":"EC","crv":"P-256","use":"sig","key_ops":["sign"],"x":"AQAB","y":"AQAB"}]}"#;
    vec![
        keys(status(500, None), 75, "temporarily unavailable"),
        keys(status_with(503, "Retry-After", "600"), 75, "503"),
        keys(status(429, None), 75, "429"),
        // This request carries no credentials, so a refusal is not about them: the keys are unreachable.
        keys(status(403, None), 75, "403"),
        keys(status(401, None), 75, "401"),
        keys(status(400, None), 76, "400"),
        keys(Fault::Redirect("/elsewhere".into()), 76, "redirect"),
        keys(portal(), 75, "is not JSON"),
        keys(body(""), 75, "is not JSON"),
        keys(body("{}"), 76, "keys"),
        keys(body("[]"), 76, "keys"),
        keys(body("{\"keys\":null}"), 76, "keys"),
        keys(body("{\"keys\":[]}"), 76, "no key for ES256"),
        keys(body("{\"keys\":[null,7,{}]}"), 76, "no key for ES256"),
        keys(body(rsa), 76, "no key for ES256"),
        keys(body(secret), 76, "no key for ES256"),
        keys(body(curve), 76, "no key for ES256"),
        keys(body(point), 76, "key"),
        keys(body("{\"keys\":{\"a\":1}}"), 76, "keys"),
        keys(status(204, None), 76, "204"),
        keys(status(410, None), 76, "410"),
        keys(status(511, None), 75, "511"),
        keys(status_with(302, "Location", "https://hush.example/portal"), 76, "redirect"),
        keys(status_with(503, "Retry-After", "soon"), 75, "asks to wait"),
        keys(Fault::Endless, 75, "larger than"),
        keys(Fault::Drip(Duration::from_millis(300)), 75, "no answer in time"),
        keys(Fault::DropAfter, 75, "closed before the answer"),
        keys(body(encryption), 76, "no key for ES256"),
        keys(body(signing), 76, "no key for ES256"),
        keys(Fault::Truncate, 75, "closed before the answer"),
        keys(Fault::Hang, 75, "no answer in time"),
        keys(Fault::DropBefore, 75, "closed before the answer"),
        keys(Fault::Huge(1_000_000), 75, "larger than"),
        Row { logins: 1..=1, ..keys(status(404, None), 76, "no key to verify it with") },
    ]
}
