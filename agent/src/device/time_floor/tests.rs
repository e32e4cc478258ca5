use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;
/// Build or provisioning.
const LOWEST: u64 = 1_780_000_000;

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn at(boot: u64, seconds: u64) -> BootMoment {
    BootMoment { boot_id: format!("boot-{boot}"), since_boot: Duration::from_secs(seconds) }
}

/// Returns a floor without memory.
fn new() -> Floor {
    Floor::new([time(LOWEST)], Memory::default())
}

/// Returns a floor with the memory that an older agent wrote.
fn remembering(highest: u64) -> Floor {
    Floor::new([time(LOWEST)], Memory { highest_time: Some(time(highest)), ..Memory::default() })
}

/// Returns a floor after answers, each with its boot, boot clock and time, in seconds after [`LOWEST`].
fn after(mut floor: Floor, answers: &[(u64, u64, u64)]) -> u64 {
    for &(boot, clock, said) in answers {
        floor.answered(time(LOWEST + said), &at(boot, clock));
    }
    floor.time().unix() - LOWEST
}

// Promise: a step of 30 days is taken at once, a longer one when a second answer agrees 24 h of boot clock later, also
// over several boots; many answers in a row raise the floor no further than one.
#[test]
fn long_steps_need_two_answers() {
    for (answers, floor) in [
        (&[(1, 0, 5)][..], 5),
        (&[(1, 0, 30 * DAY)], 30 * DAY),
        (&[(1, 0, 30 * DAY + 1)], 0),
        (&[(1, 0, 8 * YEAR), (1, HOUR, 8 * YEAR + HOUR)], 0),
        (&[(1, 0, 8 * YEAR), (1, DAY - 1, 8 * YEAR + DAY)], 0),
        (&[(1, 0, 8 * YEAR), (1, DAY, 8 * YEAR + DAY)], 8 * YEAR + DAY),
        // The second boot has been up for 20 h, and nothing is known of the time between the two.
        (&[(1, 0, 8 * YEAR), (1, 4 * HOUR, 8 * YEAR + 4 * HOUR), (2, 20 * HOUR - 1, 9 * YEAR)], 0),
        (&[(1, 0, 8 * YEAR), (1, 4 * HOUR, 8 * YEAR + 4 * HOUR), (2, 20 * HOUR, 9 * YEAR)], 8 * YEAR + DAY),
        // They do not agree: the second answer says an earlier time.
        (&[(1, 0, 8 * YEAR), (1, DAY, 7 * YEAR)], 0),
        (&[(1, 0, 8 * YEAR), (1, HOUR, HOUR), (1, DAY, 8 * YEAR + DAY)], HOUR),
        // The first answer alone was right.
        (&[(1, 0, HOUR), (1, DAY, 8 * YEAR)], HOUR + DAY),
        // Step after step, a hundred within an hour.
        (&[(1, 0, 29 * DAY), (1, MINUTE, 58 * DAY), (1, 2 * MINUTE, 87 * DAY)], 29 * DAY),
    ] {
        assert_eq!(after(new(), answers), floor, "{answers:?}");
    }
}

// Promise: answers that say an earlier time for 24 h lower the floor to the later of them, never below the lowest time.
#[test]
fn earlier_answers_lower_it() {
    let high = 20 * DAY;
    for (answers, floor) in [
        (&[(1, 0, 5)][..], high),
        (&[(1, 0, 0), (1, DAY - 1, DAY)], high),
        (&[(1, 0, 0), (1, DAY, DAY)], DAY),
        (&[(1, 0, 0), (2, DAY, 3 * DAY)], 3 * DAY),
        // One wrong answer does not lower the floor further than the other answer.
        (&[(1, 0, HOUR), (1, DAY, 0)], HOUR + DAY),
        // An answer with a later time ends it.
        (&[(1, 0, 0), (1, HOUR, high), (1, DAY, DAY)], high),
        (&[(1, 0, 0), (1, HOUR, high), (1, DAY, DAY), (1, 2 * DAY, 2 * DAY)], 2 * DAY),
        // Within the tolerance.
        (&[(1, 0, high - MINUTE), (1, DAY, high - MINUTE)], high),
    ] {
        assert_eq!(after(remembering(LOWEST + high), answers), floor, "{answers:?}");
    }
    let mut floor = remembering(LOWEST + high);
    floor.answered(time(5), &at(1, 0));
    floor.answered(time(5 + DAY), &at(1, DAY));
    assert_eq!(floor.time(), time(LOWEST));
}

// Promise: a floor that makes the certificate look expired is lowered: the part that no second answer has confirmed
// after 6 h, all of it after a week, never below the lowest time.
#[test]
fn a_certificate_that_looks_expired_lowers_it() {
    let (confirmed, high) = (10 * DAY, 20 * DAY);
    let memory = Memory {
        highest_time: Some(time(LOWEST + high)),
        confirmed_time: Some(time(LOWEST + confirmed)),
        ..Memory::default()
    };
    for (ended, hours, floor) in [
        (15 * DAY, 5, high),
        (15 * DAY, 6, 15 * DAY),
        (10 * DAY, 6, 10 * DAY),
        (9 * DAY, 6, high),
        (9 * DAY, 7 * 24 - 1, high),
        (9 * DAY, 7 * 24, 9 * DAY),
        (20 * DAY, 7 * 24, high),
        (21 * DAY, 7 * 24, high),
    ] {
        let mut it = Floor::new([time(LOWEST)], memory.clone());
        for hour in 0..=hours {
            it.looked_expired(time(LOWEST + ended), &at(hour / 5, (hour % 5) * HOUR + HOUR * u64::from(hour >= 5)));
        }
        assert_eq!(it.time().unix(), LOWEST + floor, "{ended} {hours}");
    }
    let mut floor = remembering(LOWEST + high);
    for clock in [0, 7 * DAY] {
        floor.looked_expired(time(LOWEST - 1), &at(1, clock));
    }
    assert_eq!(floor.time(), time(LOWEST + high));
    // Without memory the floor is not the cause.
    assert!(!new().looked_expired(time(LOWEST - 1), &at(1, 0)));
}

// Promise: a run each minute does not cause a write each minute.
#[test]
fn few_notes_are_written() {
    let mut floor = remembering(LOWEST + 20 * DAY);
    let notes = (0..60).filter(|minute| floor.looked_expired(time(LOWEST + DAY), &at(1, minute * MINUTE)));
    assert_eq!(notes.count(), 6);
}

// Promise: the format of older agents can be read, and a written memory is read back unchanged.
#[test]
fn the_format_is_kept() {
    let old: Memory = serde_json::from_str(r#"{"highest_time":"2034-01-01T00:00:00Z"}"#).unwrap();
    assert_eq!(old.highest_time, Some("2034-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(serde_json::to_string(&Memory::default()).unwrap(), "{}");
    let mut floor = remembering(LOWEST + 20 * DAY);
    floor.answered(time(LOWEST + DAY), &at(1, 5));
    floor.looked_expired(time(LOWEST + DAY), &at(1, 6));
    let text = serde_json::to_string(floor.memory()).unwrap();
    assert_eq!(&serde_json::from_str::<Memory>(&text).unwrap(), floor.memory(), "{text}");
    for part in ["later_claim", "earlier_claim", "expired_for", r#""boot_id":"boot-1""#] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A device and its server, of which all answers but one are right.
struct Simulation {
    floor: Floor,
    truth: u64,
    boot: u64,
    clock: u64,
    /// Whether the wall clock is right. If not, it starts in 1970 on each boot.
    is_synchronised: bool,
    /// Days that a certificate is valid, and days before its end when it is renewed.
    certificate: (u64, u64),
    /// Boot-clock time since the device was ready.
    waiting: u64,
}

impl Simulation {
    /// Returns when the present certificate of the server ends.
    fn ends(&self) -> u64 {
        let (days, renewed) = self.certificate;
        let period = (days - renewed) * DAY;
        (self.truth - LOWEST) / period * period + days * DAY + LOWEST
    }

    fn pass(&mut self, seconds: u64) {
        self.truth += seconds;
        self.clock += seconds;
        self.waiting += seconds;
    }

    /// Simulates one run of the agent.
    fn run(&mut self) {
        let wall = if self.is_synchronised { self.truth } else { self.clock };
        let until = self.ends();
        if self.floor.time().unix().max(wall) > until {
            self.floor.looked_expired(time(until), &at(self.boot, self.clock));
        } else {
            self.floor.answered(time(self.truth), &at(self.boot, self.clock));
            self.waiting = 0;
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let tolerance = TOLERANCE.as_secs();
        prop_assert!(self.floor.time() >= time(LOWEST));
        prop_assert!(self.floor.confirmed().unix() <= self.truth + tolerance, "{self:?}");
        prop_assert!(self.floor.time().unix() <= self.truth + 30 * DAY + tolerance, "{self:?}");
        prop_assert!(self.waiting <= DAY, "not ready for {} h: {self:?}", self.waiting / HOUR);
        Ok(())
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, truth {}, boot {} {}", self.floor, time(self.truth), self.boot, self.clock)
    }
}

proptest! {
    // Promise: after one wrong answer, whatever it says, whenever it comes, and however often the device boots, the
    // device is ready again within 24 h of uptime, and the floor stays between the lowest time and 30 days ahead of the
    // truth.
    #[test]
    fn one_wrong_answer_heals(
        is_synchronised: bool,
        certificate in prop::sample::select(vec![(90, 30), (90, 1), (6, 2), (1, 0), (3650, 30)]),
        steps in prop::collection::vec((1..30_u64, prop::option::weighted(0.1, 0..40 * 24_u64)), 1..60),
        wrong_at in 0..60_usize,
        wrong_by in prop_oneof![-10 * 365 * 24..10 * 365 * 24_i64, -35 * 24..35 * 24_i64],
    ) {
        let mut it = Simulation {
            floor: new(), truth: LOWEST + HOUR, boot: 0, clock: 20, is_synchronised, certificate, waiting: 0,
        };
        for (number, (hours, reboot)) in steps.into_iter().enumerate() {
            if let Some(hours_off) = reboot {
                (it.boot, it.clock, it.truth) = (it.boot + 1, 20, it.truth + 20 + hours_off * HOUR);
            }
            for _ in 0..hours {
                it.pass(HOUR);
                it.run();
                it.check()?;
            }
            if number == wrong_at {
                let said = it.truth.saturating_add_signed(wrong_by * 3600);
                it.floor.answered(time(said), &at(it.boot, it.clock));
                it.check()?;
            }
        }
    }

    // Promise: without a wrong answer the floor follows the true time, and is never ahead of it.
    #[test]
    fn honest_answers_alone(
        steps in prop::collection::vec((1..30_u64, prop::option::weighted(0.3, 0..40 * 24_u64)), 1..60),
    ) {
        let mut it = Simulation {
            floor: new(), truth: LOWEST, boot: 0, clock: 20, is_synchronised: true, certificate: (6, 2), waiting: 0,
        };
        for (hours, reboot) in steps {
            if let Some(hours_off) = reboot {
                (it.boot, it.clock, it.truth) = (it.boot + 1, 20, it.truth + 20 + hours_off * HOUR);
            }
            for _ in 0..hours {
                it.pass(HOUR);
                it.run();
                prop_assert!(it.floor.time().unix() <= it.truth && it.waiting == 0, "{it:?}");
            }
            // After two days in one boot the floor has caught up: a claim of the boot before may take the first day.
            if it.clock > 2 * DAY + HOUR {
                prop_assert_eq!(it.floor.time().unix(), it.truth);
            }
        }
    }
}
