//! A state of the world: the API, the targets, the progress of each host, and what its messages have promised so far.

use super::effects::{Op, Seen};
use super::host::{Execution, Hosts, Next, Notice, Program};
use super::rules::{self, Broken};
use super::sizes::{Size, Start};
use super::world::{Account, Api, File, Password, Reply, Request, Run};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) api: Api,
    /// Requests whose sender has given up, and which the API carries out later.
    pub(super) late: Vec<(Run, Request)>,
    pub(super) targets: Vec<Option<File>>,
    pub(super) hosts: Vec<Host>,
    /// The devices for which a run has succeeded.
    pub(super) reports: Vec<Report>,
    /// Set of the runs that warned that devices flashed earlier can no longer log in.
    pub(super) announced: u32,
    /// Set of the runs for which a message reported that they may have left a user without a device.
    pub(super) reported_orphans: u32,
    /// Passwords that a person has cleared, or of users that could be created because another run has deleted the earlier user.
    pub(super) given_up: Vec<Password>,
    /// Number of faults and crashes that may still occur, and that have occurred.
    pub(super) faults: (u8, u8),
    pub(super) clears: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Host {
    /// Number of runs that it has begun.
    pub(super) runs: u8,
    pub(super) work: Option<Work>,
}

/// A run in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) run: Run,
    /// Its observations, see [`Hosts`].
    pub(super) node: usize,
    pub(super) drawn: Option<Password>,
    /// Content of its targets when it began.
    pub(super) before: Vec<Option<File>>,
    /// Whether the API may have, or has had, the password in the targets, or has replied that there is no user.
    pub(super) may_be_set: bool,
    /// The run that has changed the account since the last reply to this run.
    pub(super) overtaken: Option<Run>,
}

/// A device for which a run has ended with exit code 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Report {
    pub(super) run: Run,
    pub(super) account: Account,
    pub(super) password: Password,
    /// The run whose effect has locked the device out.
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
            reported_orphans: 0,
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
        self.advance(size, hosts, host)
    }

    /// Adds an observation to a run, and advances it to its next effect.
    pub(super) fn observe(&mut self, size: &Size, hosts: &mut Hosts, host: usize, seen: Seen) -> Result<(), Broken> {
        if let Some(work) = &mut self.hosts[host].work {
            work.node = hosts.observe(work.node, seen);
        }
        self.advance(size, hosts, host)
    }

    /// Carries out the effects that no other run can see, such as reading a locked target.
    fn advance(&mut self, size: &Size, hosts: &mut Hosts, host: usize) -> Result<(), Broken> {
        while let Some(mut work) = self.hosts[host].work.take() {
            let execution = hosts.execution(work.node);
            self.record(size, host, &work, &execution)?;
            match &execution.next {
                Next::End { outcome: Some(outcome), .. } => {
                    return rules::at_success(self, size, host, &work, *outcome);
                }
                // The run reported that a target could not be restored.
                Next::End { .. } if execution.has(Notice::NotRestored) => return Ok(()),
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

    /// Records the messages of a run.
    fn record(&mut self, size: &Size, host: usize, work: &Work, execution: &Execution) -> Result<(), Broken> {
        if let Some(line) = &execution.leak {
            return Err(Broken(format!("a password is in a message: {line}")));
        }
        self.announced |= if execution.has(Notice::LockedOut) { work.run.bit() } else { 0 };
        self.reported_orphans |= if execution.has(Notice::Orphan) { work.run.bit() } else { 0 };
        if execution.has(Notice::Intent) {
            for target in &size.hosts[host].targets {
                self.report_intent(size, *target, Some(work.run));
            }
        }
        Ok(())
    }

    /// Records that an intent in this target was reported: it covers all runs that have written to the target before, except `except`.
    pub(super) fn report_intent(&mut self, size: &Size, target: usize, except: Option<Run>) {
        for (number, _) in size.hosts.iter().enumerate().filter(|(_, plan)| plan.targets.contains(&target)) {
            for run in 0..self.hosts[number].runs {
                let run = Run { host: u8::try_from(number).unwrap_or(u8::MAX), number: run };
                self.reported_orphans |= if Some(run) == except { 0 } else { run.bit() };
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
                return Err(Broken(format!("{run:?} has reported a device, and now its own {request} locks it out")));
            }
            report.lost_to = Some(run);
        }
        // Creating a user affects no other run.
        if matches!(request, Request::Create(..)) {
            return Ok(reply);
        }
        for work in self.hosts.iter_mut().filter_map(|host| host.work.as_mut()).filter(|work| work.run != run) {
            work.overtaken = Some(run);
        }
        Ok(reply)
    }

    /// Allows a password to exist only on the API from now on.
    pub(super) fn give_up(&mut self, password: Password) {
        self.given_up.push(password);
        self.given_up.sort_unstable();
        self.given_up.dedup();
    }

    /// Returns a password that is not in use anywhere.
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
