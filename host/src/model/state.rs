//! A state of the world: the API, the targets, where each host is, and what has been promised to people so far.

use super::effects::{Op, Seen};
use super::host::{Execution, Hosts, Next, Notice, Program};
use super::rules::{self, Broken};
use super::sizes::{Size, Start};
use super::world::{Account, Api, File, Password, Reply, Request, Run};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) api: Api,
    /// Requests whose sender has given up, and which the API carries out at some time.
    pub(super) late: Vec<(Run, Request)>,
    pub(super) targets: Vec<Option<File>>,
    pub(super) hosts: Vec<Host>,
    /// The devices that a run has ended well for.
    pub(super) reports: Vec<Report>,
    /// The runs that have said that devices which were flashed earlier can't log in any more.
    pub(super) announced: u32,
    /// The runs of which somebody has said that they may have left a user without a device.
    pub(super) told: u32,
    /// The passwords that a person has cleared, or of users for which another run's deletion has made room.
    pub(super) given_up: Vec<Password>,
    /// How many faults and crashes may still come, and how many have come.
    pub(super) faults: (u8, u8),
    pub(super) clears: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Host {
    /// How many runs it has begun.
    pub(super) runs: u8,
    pub(super) work: Option<Work>,
}

/// A run that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) run: Run,
    /// What it has observed, see [`Hosts`].
    pub(super) node: usize,
    pub(super) drawn: Option<Password>,
    /// What was in its targets.
    pub(super) before: Vec<Option<File>>,
    /// Whether the API may have, or has had, the password that is in the targets, or has said that there is no user.
    pub(super) may_be_set: bool,
    /// IdentitySource has changed the account since this run has last had an answer.
    pub(super) overtaken: Option<Run>,
}

/// A device for which a run has ended with exit code 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Report {
    pub(super) run: Run,
    pub(super) account: Account,
    pub(super) password: Password,
    /// Whose effect has put it out.
    pub(super) lost_to: Option<Run>,
}

impl State {
    pub(super) fn new(size: &Size) -> Self {
        let mut api = Api::new(size.sets_passwords);
        let count = size.hosts.iter().flat_map(|plan| &plan.targets).max().map_or(0, |last| last + 1);
        let mut targets = vec![None; count];
        if size.start != Start::Empty {
            api.perform(Request::Create(Account::Serial, Password::LOST), None);
        }
        let mut reports = Vec::new();
        if size.start == Start::Doubtful {
            let (email, password) = (Account::Serial.email(), Password::LOST.text());
            let text = format!(
                "AZAION_DEVICE_SERIAL=AZJN-0042\nAZAION_DEVICE_EMAIL={email}\nAZAION_DEVICE_PASSWORD={password}\n\
                 AZAION_API_URL=https://api.azaion.com\n"
            );
            targets.fill(Some(File { text: text.into(), is_doubtful: true }));
            let run = Run { host: 3, number: 0 };
            reports.push(Report { run, account: Account::Serial, password: Password::LOST, lost_to: None });
        }
        Self {
            api,
            late: Vec::new(),
            targets,
            hosts: vec![Host::default(); size.hosts.len()],
            reports,
            announced: 0,
            told: 0,
            given_up: Vec::new(),
            faults: (size.faults, 0),
            clears: size.clears,
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.hosts.iter().all(|host| host.work.is_none())
    }

    /// Whether a run holds the lock of a target.
    pub(super) fn is_locked(&self, size: &Size, target: usize) -> bool {
        let mut working = self.hosts.iter().zip(&size.hosts).filter(|(host, _)| host.work.is_some());
        working.any(|(_, plan)| plan.targets.contains(&target))
    }

    /// Begins a run.
    pub(super) fn begin(
        &mut self,
        size: &Size,
        hosts: &mut Hosts,
        host: usize,
        program: Program,
    ) -> Result<(), Broken> {
        let run = Run { host: u8::try_from(host).unwrap_or(u8::MAX), number: self.hosts[host].runs };
        let before = size.hosts[host].targets.iter().map(|&target| self.targets[target].clone()).collect();
        let node = hosts.begin(program);
        let work = Work { run, node, drawn: None, before, may_be_set: false, overtaken: None };
        self.hosts[host].runs += 1;
        self.hosts[host].work = Some(work);
        self.settle(size, hosts, host)
    }

    /// Tells a run what it observes, and has it go on to its next effect.
    pub(super) fn observe(&mut self, size: &Size, hosts: &mut Hosts, host: usize, seen: Seen) -> Result<(), Broken> {
        if let Some(work) = &mut self.hosts[host].work {
            work.node = hosts.observe(work.node, seen);
        }
        self.settle(size, hosts, host)
    }

    /// Does at once what nobody else can see, as reading a target that is locked.
    fn settle(&mut self, size: &Size, hosts: &mut Hosts, host: usize) -> Result<(), Broken> {
        while let Some(mut work) = self.hosts[host].work.take() {
            let execution = hosts.execution(work.node);
            self.note(size, host, &work, &execution)?;
            match &execution.next {
                Next::End { outcome: Some(outcome), .. } => {
                    return rules::at_success(self, size, host, &work, *outcome);
                }
                // It says that a target could not be restored.
                Next::End { .. } if execution.says(Notice::NotRestored) => return Ok(()),
                Next::End { exit, .. } => return rules::at_failure(self, size, host, &work, *exit),
                Next::Op(Op::Read(target)) => {
                    let file = self.targets[size.hosts[host].targets[*target]].clone();
                    work.node = hosts.observe(work.node, Seen::File(file));
                }
                Next::Op(Op::Draw) => {
                    let password = self.unused_password();
                    work.drawn = Some(password);
                    work.node = hosts.observe(work.node, Seen::Drawn(password));
                }
                Next::Op(Op::Put(..) | Op::Call(_)) => {
                    self.hosts[host].work = Some(work);
                    return Ok(());
                }
            }
            self.hosts[host].work = Some(work);
        }
        Ok(())
    }

    /// Takes note of what a run has said.
    fn note(&mut self, size: &Size, host: usize, work: &Work, execution: &Execution) -> Result<(), Broken> {
        if let Some(line) = &execution.leak {
            return Err(Broken(format!("a password is in a message: {line}")));
        }
        self.announced |= if execution.says(Notice::PutOut) { work.run.bit() } else { 0 };
        self.told |= if execution.says(Notice::Orphan) { work.run.bit() } else { 0 };
        if execution.says(Notice::Intent) {
            for target in &size.hosts[host].targets {
                self.tell_of(size, *target, Some(work.run));
            }
        }
        Ok(())
    }

    /// Somebody reports an intent in this target, so that all runs that have written to it before are known.
    pub(super) fn tell_of(&mut self, size: &Size, target: usize, but: Option<Run>) {
        for (number, _) in size.hosts.iter().enumerate().filter(|(_, plan)| plan.targets.contains(&target)) {
            for run in 0..self.hosts[number].runs {
                let run = Run { host: u8::try_from(number).unwrap_or(u8::MAX), number: run };
                self.told |= if Some(run) == but { 0 } else { run.bit() };
            }
        }
    }

    /// The API carries out a request of a run.
    pub(super) fn perform(&mut self, run: Run, request: Request) -> Result<Reply, Broken> {
        let users = self.api.users.clone();
        let reply = self.api.perform(request, Some(run));
        if self.api.users == users {
            return Ok(reply);
        }
        for report in self.reports.iter_mut().filter(|report| report.lost_to.is_none()) {
            if self.api.lets_in(report.account, report.password) {
                continue;
            }
            if report.run == run {
                return Err(Broken(format!("{run:?} has reported a device, and now its own {request} puts it out")));
            }
            report.lost_to = Some(run);
        }
        // Making a user takes nothing from anybody.
        if matches!(request, Request::Create(..)) {
            return Ok(reply);
        }
        for work in self.hosts.iter_mut().filter_map(|host| host.work.as_mut()).filter(|work| work.run != run) {
            work.overtaken = Some(run);
        }
        Ok(reply)
    }

    /// A password may be on the API alone from now on.
    pub(super) fn give_up(&mut self, password: Password) {
        self.given_up.push(password);
        self.given_up.sort_unstable();
        self.given_up.dedup();
    }

    /// The passwords that are anywhere, so that a new one is none of them.
    fn unused_password(&self) -> Password {
        let files = self.hosts.iter().filter_map(|host| host.work.as_ref()).flat_map(|work| &work.before);
        let mut used: Vec<Password> = files.chain(&self.targets).filter_map(|file| file.as_ref()?.password()).collect();
        used.extend(self.api.users.values().map(|user| user.password));
        used.extend(self.late.iter().filter_map(|(_, request)| match request {
            Request::Create(_, password) | Request::SetPassword(_, password) => Some(*password),
            _ => None,
        }));
        used.extend(self.reports.iter().map(|report| report.password));
        used.extend(self.hosts.iter().filter_map(|host| host.work.as_ref()?.drawn));
        used.extend(&self.given_up);
        (0..Password::LOST.0).map(Password).find(|password| !used.contains(password)).unwrap_or(Password::LOST)
    }
}
