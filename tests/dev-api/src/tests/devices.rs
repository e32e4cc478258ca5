//! Identities that the server creates, and the machine that G1 binds a user to.

use super::*;

/// Starts a server without any device.
fn empty(options: Options) -> (DevApi, Client) {
    let api = DevApi::start(options).unwrap();
    let client = Client::of(&api);
    (api, client)
}

// Promise: the server creates device identities itself, without a request body, a new one each time, and they can log
// in; not in G1.
#[test]
fn devices() {
    for (generation_, casing, made) in [
        (Generation::G2, Casing::Camel, 200),
        (Generation::G2, Casing::Pascal, 200),
        (Generation::G2b, Casing::Camel, 201),
    ] {
        let (api, client) = empty(Options { casing, ..generation(generation_) });
        let token = log_in(&client, ADMIN_EMAIL, ADMIN_PASSWORD).json()[casing.spell("token")].clone();
        let admin = client.with_bearer(token.as_str().unwrap());
        for serial in ["azj-0001", "azj-0002"] {
            let reply = admin.send("POST", "/devices", "");
            assert_eq!(reply.status, made);
            let field = |name| reply.json()[casing.spell(name)].as_str().unwrap().to_owned();
            assert_eq!((field("serial"), field("email")), (serial.to_owned(), format!("{serial}@azaion.com")));
            assert_eq!(field("password").len(), 32);
            assert_eq!(log_in(&client, &field("email"), &field("password")).status, 200);
            assert_eq!(api.user(&field("email")).unwrap().role, "CompanionPC");
        }
    }
    let (_api, client) = start(generation(Generation::G1));
    assert_eq!(as_admin(&client).send("POST", "/devices", "").status, 404);
}

// Promise: the newest device's e-mail decides: after one of another form the call fails for every caller and creates
// nothing; if the next number's e-mail exists, the answer is 409 with 20.
#[test]
fn numbering() {
    let (api, client) = empty(Options::default());
    let admin = as_admin(&client);
    let add = || admin.send("POST", "/devices", "").outcome();
    for (newest, role, outcome, users) in [
        ("azj-0007@azaion.com", "CompanionPC", (200, None), 2),
        ("azaion-jetson-0042@azaion.com", "CompanionPC", (500, None), 3),
        // Only devices count.
        ("azj-0001@azaion.com", "Operator", (500, None), 4),
        // The next would be 0008, which the first call created.
        ("azj-0007-spare@azaion.com", "CompanionPC", (409, Some(20)), 5),
    ] {
        api.add_user(newest, PASSWORD, role);
        assert_eq!(add(), outcome, "{newest}");
        assert_eq!(api.users().len(), users, "{newest}");
    }
    api.delete_user("azj-0007-spare@azaion.com");
    assert_eq!(add(), (500, None));
    api.delete_user("azaion-jetson-0042@azaion.com");
    assert_eq!(add(), (200, None));
    assert!(api.user("azj-0009@azaion.com").is_some());
}

// Promise: G1 binds a user to the first machine that calls, until an admin resets it; a login does not require it.
// Later generations have no such routes.
#[test]
fn hardware() {
    let (api, client) = start(generation(Generation::G1));
    let bearer = |client: &Client| {
        let answer = log_in(client, EMAIL, PASSWORD).json();
        client.with_bearer(answer["token"].as_str().unwrap())
    };
    let device = bearer(&client);
    let check = |machine: &str| device.post("/resources/check", &json!({ "hardware": machine })).outcome();
    let get = |machine: &str, password: &str| {
        let body = json!({ "hardware": machine, "password": password, "fileName": "model" });
        device.post("/resources/get/models", &body).outcome()
    };
    assert_eq!(api.hardware_of(EMAIL), None);
    assert_eq!(get("one", "wrong-password"), (409, Some(30)));
    assert_eq!(api.hardware_of(EMAIL), None);
    assert_eq!(check("one"), (200, None));
    assert_eq!(api.hardware_of(EMAIL), Some("one".to_owned()));
    assert_eq!((check("one"), get("one", PASSWORD)), ((200, None), (200, None)));
    assert_eq!((check("other"), get("other", PASSWORD)), ((409, Some(40)), (409, Some(40))));
    assert_eq!(log_in(&client, EMAIL, PASSWORD).status, 200);
    let reset = |client: &Client, email: &str| {
        let body = json!({ "Email": email, "Hardware": null }).to_string();
        client.send("PUT", "/users/hardware/set", &body).outcome()
    };
    let admin = as_admin(&client);
    assert_eq!(reset(&device, EMAIL), (403, None));
    assert_eq!(reset(&admin, "nobody@azaion.com"), (409, Some(10)));
    assert_eq!(reset(&admin, EMAIL), (200, None));
    assert_eq!(api.hardware_of(EMAIL), None);
    assert_eq!(get("other", PASSWORD), (200, None));
    assert_eq!(api.hardware_of(EMAIL), Some("other".to_owned()));
    let (_api, client) = start(generation(Generation::G2));
    let (device, admin) = (bearer(&client), as_admin(&client));
    assert_eq!(device.post("/resources/check", &json!({ "hardware": "one" })).status, 404);
    assert_eq!(reset(&admin, EMAIL), (404, None));
}
