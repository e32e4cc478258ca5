use super::*;

// Promise: each status has its class; the error code counts only where the API documents it.
#[test]
fn statuses_are_classified() {
    use Class::{Later, Protocol, Refused};
    for (status, code, waits, class) in [
        (400, None, false, Protocol),
        (400, None, true, Protocol),
        (400, Some(35), false, Protocol),
        (401, None, true, Later),
        (401, Some(52), false, Protocol),
        (401, Some(70), true, Later),
        (403, Some(70), true, Refused),
        (404, None, false, Protocol),
        (405, Some(30), false, Protocol),
        (407, None, false, Later),
        (407, Some(30), false, Later),
        (408, None, false, Later),
        (409, Some(20), false, Protocol),
        (409, Some(30), true, Refused),
        (423, Some(50), true, Later),
        (423, Some(70), false, Later),
        (425, None, false, Later),
        (429, Some(51), true, Later),
        (500, None, false, Later),
        (503, Some(30), true, Later),
        (599, None, false, Later),
        (204, None, false, Protocol),
    ] {
        assert_eq!(class_of(status, code, waits), class, "{status} {code:?} {waits}");
    }
}

// Promise: only the API's error object with a code about the credentials is a refusal, and no other answer with these statuses.
#[test]
fn only_the_api_refuses() {
    for status in [400, 401, 403, 404, 409] {
        for code in [10, 30, 37, 38, 70] {
            assert_eq!(class_of(status, Some(code), false), Class::Refused, "{status} {code}");
        }
        for code in [None, Some(0), Some(20), Some(32), Some(35), Some(40), Some(50), Some(51), Some(52), Some(53)] {
            assert_eq!(class_of(status, code, false), Class::Protocol, "{status} {code:?}");
        }
    }
}

// Promise: a 407 is transient on the host, too, and not a protocol error.
#[test]
fn a_proxy_login_is_transient() {
    let class = class_of(407, None, false);
    assert!(class.is_transient());
    assert_eq!((class.on_device(), class.on_host()), (Exit::Later, Exit::Later));
}

// Promise: each message about a refusal says which party refuses, and what to do about it.
#[test]
fn messages_name_the_refusing_party() {
    for (status, code, part) in [
        (409, Some(10), "no account with this e-mail; create it"),
        (409, Some(30), "the password is wrong"),
        (409, Some(38), "disabled; enable it"),
        (401, Some(70), "the credentials are refused; check"),
        (401, None, "not an error of the API"),
        (403, None, "not an error of the API"),
        (409, None, "not an error of the API"),
        (407, None, "a proxy requires its own login"),
    ] {
        let problem = Problem::Status { status, code, class: class_of(status, code, false) };
        assert!(problem.to_string().contains(part), "{problem}");
    }
    assert!(Problem::Page { status: 403, class: Class::Protocol }.to_string().contains("captive portal"));
}
