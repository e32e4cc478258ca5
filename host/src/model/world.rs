//! The admin API and the content of targets, as far as provisioning depends on them (`docs/admin-api.yaml`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The serial that all hosts provision.
pub(super) const SERIAL: &str = "AZJN-0042";
pub(super) const EMAIL: &str = "azaion-jetson-0042@azaion.com";

/// A password by its number, so that states which differ only in random characters are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Password(pub(super) u8);

impl Password {
    /// The unknown password of a user that existed before.
    pub(super) const LOST: Self = Self(90);
    /// First number of the server's passwords.
    pub(super) const SERVERS: u8 = 100;

    pub(super) fn text(self) -> String {
        format!("{:032}", self.0)
    }

    /// Parses a password. A random one has letters.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_ours = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_ours).map(Self)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "password {}", self.0)
    }
}

/// An e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Account {
    /// The account of the serial.
    Serial,
    /// An account created by the server, by its number.
    Assigned(u8),
}

impl Account {
    pub(super) fn email(self) -> String {
        match self {
            Self::Serial => EMAIL.to_owned(),
            Self::Assigned(number) => format!("azj-{number:04}@azaion.com"),
        }
    }

    pub(super) fn parse(email: &str) -> Option<Self> {
        if email == EMAIL {
            return Some(Self::Serial);
        }
        let number = email.strip_prefix("azj-")?.strip_suffix("@azaion.com")?;
        number.parse().ok().map(Self::Assigned)
    }
}

/// One provisioning run of one host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Run {
    pub(super) host: u8,
    pub(super) number: u8,
}

impl Run {
    /// Returns its bit in a set of runs.
    pub(super) fn bit(self) -> u32 {
        1 << (self.host * 8 + self.number)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {} run {}", char::from(b'A' + self.host), self.number)
    }
}

/// A `device.conf` in a target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct File {
    pub(super) text: Arc<str>,
    /// Whether it has a mode that this tool does not write.
    pub(super) is_doubtful: bool,
}

impl File {
    fn value(&self, key: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    pub(super) fn password(&self) -> Option<Password> {
        Password::parse(self.value("AZAION_DEVICE_PASSWORD")?)
    }

    pub(super) fn account(&self) -> Option<Account> {
        Account::parse(self.value("AZAION_DEVICE_EMAIL")?)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.account(), self.password()) {
            (Some(account), Some(password)) => write!(f, "{account:?} with {password:?}"),
            _ => f.write_str("an intent"),
        }
    }
}

/// A call to the API, except the admin's login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    Login(Account, Password),
    Create(Account, Password),
    SetPassword(Account, Password),
    Delete(Account),
    Devices,
}

impl Request {
    /// Returns whether it changes nothing.
    pub(super) fn is_read(self) -> bool {
        matches!(self, Self::Login(..))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(account, password) => write!(f, "POST /login ({account:?}, {password:?})"),
            Self::Create(account, password) => write!(f, "POST /users ({account:?}, {password:?})"),
            Self::SetPassword(account, password) => write!(f, "PATCH /users/password ({account:?}, {password:?})"),
            Self::Delete(account) => write!(f, "DELETE /users ({account:?})"),
            Self::Devices => f.write_str("POST /devices"),
        }
    }
}

/// The reply to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Token,
    Refused,
    Done,
    Exists,
    NoSuchUser,
    NoRoute,
    Identity(u8),
}

impl Reply {
    /// Returns status and body.
    pub(super) fn render(self) -> (u16, String) {
        let error = |code| format!(r#"{{"ErrorCode":{code},"Message":"m"}}"#);
        match self {
            Self::Token => (200, r#"{"token":"t"}"#.to_owned()),
            Self::Refused => (401, error(70)),
            Self::Done => (200, String::new()),
            Self::Exists => (409, error(20)),
            Self::NoSuchUser => (404, error(10)),
            Self::NoRoute => (404, String::new()),
            Self::Identity(number) => {
                let (email, password) =
                    (Account::Assigned(number).email(), Password(Password::SERVERS + number).text());
                (200, format!(r#"{{"Serial":"azj-{number:04}","Email":"{email}","Password":"{password}"}}"#))
            }
        }
    }
}

/// A user of the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) password: Password,
    /// Unique for each created user, even with the same e-mail.
    pub(super) id: u8,
    /// The run that created it, if one did.
    pub(super) maker: Option<Run>,
}

/// The API. E-mails are unique, as they have been since 13 May 2026.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Api {
    pub(super) users: BTreeMap<Account, User>,
    /// Whether it has `PATCH /users/password`.
    pub(super) sets_passwords: bool,
    next_id: u8,
    devices: u8,
}

impl Api {
    pub(super) fn new(sets_passwords: bool) -> Self {
        Self { users: BTreeMap::new(), sets_passwords, next_id: 0, devices: 0 }
    }

    /// Carries out a request of a run.
    pub(super) fn perform(&mut self, request: Request, run: Option<Run>) -> Reply {
        match request {
            Request::Login(account, password) => {
                if self.lets_in(account, password) {
                    Reply::Token
                } else {
                    Reply::Refused
                }
            }
            Request::Create(account, _) if self.users.contains_key(&account) => Reply::Exists,
            Request::Create(account, password) => {
                self.make(account, password, run);
                Reply::Done
            }
            Request::SetPassword(..) if !self.sets_passwords => Reply::NoRoute,
            Request::SetPassword(account, password) => match self.users.get_mut(&account) {
                Some(user) => {
                    if user.password != password {
                        user.maker = run;
                    }
                    user.password = password;
                    Reply::Done
                }
                None => Reply::NoSuchUser,
            },
            Request::Delete(account) => match self.users.remove(&account) {
                Some(_) => Reply::Done,
                None => Reply::NoSuchUser,
            },
            Request::Devices => {
                let number = self.devices;
                self.devices += 1;
                self.make(Account::Assigned(number), Password(Password::SERVERS + number), run);
                Reply::Identity(number)
            }
        }
    }

    pub(super) fn lets_in(&self, account: Account, password: Password) -> bool {
        self.users.get(&account).is_some_and(|user| user.password == password)
    }

    fn make(&mut self, account: Account, password: Password, maker: Option<Run>) {
        self.users.insert(account, User { password, id: self.next_id, maker });
        self.next_id += 1;
    }
}
