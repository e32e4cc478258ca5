//! The unknowns of the admin API, in all combinations, or in a few that cover each pair of choices.

use std::collections::BTreeSet;
use std::fmt;

use azaion_tests::dev_api::{Casing, Generation, Hashing, Options, RoleForm};

const GENERATIONS: [Generation; 3] = [Generation::G1, Generation::G2, Generation::G2b];
const CASINGS: [Casing; 3] = [Casing::Camel, Casing::Snake, Casing::Pascal];
const ROLE_FORMS: [RoleForm; 3] = [RoleForm::Name, RoleForm::Number, RoleForm::Either];

/// The number of choices of each kind, in the order of [`Combination`]'s fields.
const CHOICES: [usize; 7] = [GENERATIONS.len(), CASINGS.len(), CASINGS.len(), ROLE_FORMS.len(), 2, 2, 2];

/// One choice of each kind, as an index.
type Row = [usize; CHOICES.len()];

/// One possible form of the API.
#[derive(Clone, Copy)]
pub(crate) struct Combination {
    pub(crate) generation: Generation,
    pub(crate) casing: Casing,
    pub(crate) error_casing: Casing,
    pub(crate) role_form: RoleForm,
    pub(crate) has_codes_in_400: bool,
    pub(crate) has_password_route: bool,
    pub(crate) has_delete_route: bool,
}

impl Combination {
    fn of(row: Row) -> Self {
        let [generation, casing, error_casing, role_form, codes, password, delete] = row;
        Self {
            generation: GENERATIONS[generation],
            casing: CASINGS[casing],
            error_casing: CASINGS[error_casing],
            role_form: ROLE_FORMS[role_form],
            has_codes_in_400: codes == 0,
            has_password_route: password == 0,
            has_delete_route: delete == 0,
        }
    }

    /// Returns the options of such a server, without login limits and with cheap hashes.
    pub(crate) fn options(self) -> Options {
        Options {
            generation: self.generation,
            casing: self.casing,
            error_casing: self.error_casing,
            role_form: self.role_form,
            codes_in_400: self.has_codes_in_400,
            password_patch: self.has_password_route,
            delete_route: self.has_delete_route,
            hashing: Hashing::Cheap,
            limits: false,
            ..Options::default()
        }
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |has, name| if has { format!("with {name}") } else { format!("without {name}") };
        write!(
            f,
            "{:?}, {:?} successes, {:?} errors, role as {:?}, {}, {}, {}",
            self.generation,
            self.casing,
            self.error_casing,
            self.role_form,
            with(self.has_codes_in_400, "codes in 400s"),
            with(self.has_password_route, "password route"),
            with(self.has_delete_route, "delete route"),
        )
    }
}

fn rows() -> Vec<Row> {
    CHOICES.iter().enumerate().fold(vec![Row::default()], |rows, (kind, &count)| {
        let with = |row: &Row| {
            let row = *row;
            (0..count).map(move |choice| {
                let mut row = row;
                row[kind] = choice;
                row
            })
        };
        rows.iter().flat_map(with).collect()
    })
}

/// Two kinds, in order, and the choice in each.
type Pair = [(usize, usize); 2];

fn pairs(row: &Row) -> impl Iterator<Item = Pair> {
    let row = *row;
    (0..row.len()).flat_map(move |b| (0..b).map(move |a| [(a, row[a]), (b, row[b])]))
}

/// Returns all combinations.
pub(crate) fn all() -> Vec<Combination> {
    rows().into_iter().map(Combination::of).collect()
}

/// Returns a few combinations that cover each pair of two choices.
pub(crate) fn pairwise() -> Vec<Combination> {
    covering(&rows()).into_iter().map(Combination::of).collect()
}

/// Returns rows that cover all pairs of the given rows. Greedy: the next is always one with the most new pairs.
fn covering(rows: &[Row]) -> Vec<Row> {
    let mut open: BTreeSet<Pair> = rows.iter().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let new = |row: &&Row| pairs(row).filter(|pair| open.contains(pair)).count();
        let best = rows.iter().max_by_key(new).expect("open pairs come from rows");
        for pair in pairs(best) {
            open.remove(&pair);
        }
        chosen.push(*best);
    }
    chosen
}

// Promise: the few combinations cover each pair of two choices, and are a small part of all.
#[test]
fn few_combinations_have_all_pairs() {
    let rows = rows();
    let few = covering(&rows);
    let all_pairs = |rows: &[Row]| rows.iter().flat_map(pairs).collect::<BTreeSet<_>>();
    assert_eq!(all_pairs(&few), all_pairs(&rows));
    assert_eq!(rows.len(), CHOICES.iter().product::<usize>());
    assert!(few.len() * 20 < rows.len(), "{} of {}", few.len(), rows.len());
}
