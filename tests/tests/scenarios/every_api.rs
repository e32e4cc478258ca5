//! AC-1 to AC-4 on every possible form of the admin API: generation × spelling of the claims × casing of successes ×
//! casing of errors × form of the role × with or without a route that sets passwords.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{Casing, ClaimNames, Generation, Options, RoleForm};
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

const GENERATIONS: [Generation; 3] = [Generation::G1, Generation::G2, Generation::G2b];
const CLAIMS: [ClaimNames; 2] = [ClaimNames::Short, ClaimNames::Uri];
const CASINGS: [Casing; 3] = [Casing::Camel, Casing::Pascal, Casing::Snake];
const ROLES: [RoleForm; 3] = [RoleForm::Name, RoleForm::Number, RoleForm::Either];

/// Returns all combinations.
fn combinations() -> Vec<Options> {
    let mut all = Vec::new();
    for generation in GENERATIONS {
        for claims in CLAIMS {
            for casing in CASINGS {
                for error_casing in CASINGS {
                    for role_form in ROLES {
                        for password_patch in [true, false] {
                            // Spread so that both values occur with each of the other options.
                            let codes_in_400 = all.len() % 3 != 0;
                            all.push(Options {
                                generation,
                                claims,
                                casing,
                                error_casing,
                                role_form,
                                password_patch,
                                codes_in_400,
                                ..Options::default()
                            });
                        }
                    }
                }
            }
        }
    }
    all
}

fn report(station: &Station, options: &[&str]) -> anyhow::Result<Value> {
    Ok(station.device(options)?.ended_with(0)?.json_lines()?.remove(0))
}

/// AC-1 and AC-2: a user with the role, and a file that the API accepts.
fn makes_a_user(station: &Station) -> anyhow::Result<()> {
    ensure!(report(station, &[])?["outcome"] == "created", "AC-1: not created");
    let users = station.api.users();
    ensure!(users.len() == 1 && users[0].email == EMAIL && users[0].role == "CompanionPC", "AC-1: {users:?}");
    let password = station.password().context("AC-2: no password")?;
    ensure!(password.len() == 32 && station.api.password_is(EMAIL, &password), "AC-2: the password is not the user's");
    Ok(())
}

/// AC-3: the device is ready with a token of its account; and again after a renewal, whose request is spelled as the
/// answer was.
fn gets_a_token(station: &Station, generation: Generation) -> anyhow::Result<()> {
    station.put_policy("")?;
    station.agent(&["boot"])?.ended_with(0)?;
    let token = station.json("run/azaion/token.json").context("AC-3: no token.json")?;
    ensure!(token["email"] == EMAIL && token["role"] == "CompanionPC" && token["user_id"].is_string(), "AC-3: {token}");
    let signature = if generation == Generation::G1 { "unverified" } else { "verified" };
    ensure!(token["signature"] == signature, "AC-3: {}", token["signature"]);
    if generation == Generation::G1 {
        return Ok(());
    }
    // Due, with ten seconds of fifty left.
    let mut due = token.clone();
    let obtained = token["obtained_boottime_s"].as_u64().context("AC-3: no time")?;
    due["obtained_boottime_s"] = obtained.saturating_sub(40).into();
    due["lifetime_s"] = 50.into();
    station.put("rootfs/run/azaion/token.json", due.to_string(), 0o640)?;
    station.agent(&["boot"])?.ended_with(0)?;
    let renewed = station.json("run/azaion/token.json").context("AC-3: no token.json")?;
    ensure!(renewed["access_token"] != token["access_token"], "AC-3: not renewed");
    ensure!(station.api.calls("POST", "/token/refresh") == 1, "AC-3: not by a refresh");
    Ok(())
}

/// AC-4: no second user, and the same file.
fn runs_again(station: &Station) -> anyhow::Result<()> {
    let before = fs::read(station.inside("etc/azaion/device.conf"))?;
    ensure!(report(station, &[])?["outcome"] == "reused", "AC-4: not reused");
    ensure!(station.api.users().len() == 1, "AC-4: {:?}", station.api.users());
    ensure!(fs::read(station.inside("etc/azaion/device.conf"))? == before, "AC-4: another file");
    Ok(())
}

/// Replaces a lost password: by the route for it, if there is one; else the user is deleted and created again, on
/// request.
fn replaces_a_lost_password(station: &Station, has_route: bool) -> anyhow::Result<()> {
    station.provision_offline(&["clear", &station.rootfs().display().to_string()])?.ended_with(0)?;
    let id = || station.api.id_of(EMAIL);
    let before = id();
    if has_route {
        ensure!(report(station, &[])?["outcome"] == "updated" && id() == before, "not updated");
    } else {
        let said = station.device(&[])?.ended_with(76)?.stderr;
        ensure!(said.contains("--on-existing recreate") && said.contains(EMAIL), "{said}");
        ensure!(report(station, &["--on-existing", "recreate"])?["outcome"] == "created", "not created again");
        ensure!(id() != before, "the same id");
    }
    let password = station.password().context("no password")?;
    ensure!(
        station.api.users().len() == 1 && station.api.password_is(EMAIL, &password),
        "the password is not the user's"
    );
    Ok(())
}

fn row(options: &Options) -> String {
    let Options { generation, claims, casing, error_casing, role_form, password_patch, codes_in_400, .. } = options;
    format!(
        "| {generation:?} | {claims:?} | {casing:?} | {error_casing:?} | {role_form:?} | {} | {} |",
        if *codes_in_400 { "with a code" } else { "problem+json" },
        if *password_patch { "yes" } else { "no" }
    )
}

fn passes(options: &Options) -> anyhow::Result<()> {
    let station = Station::new(options.clone())?;
    makes_a_user(&station)?;
    gets_a_token(&station, options.generation)?;
    runs_again(&station)?;
    replaces_a_lost_password(&station, options.password_patch)
}

// Promise: AC-1 to AC-4 hold on every form of the API that any source supports; the test prints a table with a row for
// each.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn acceptance_on_every_api() -> anyhow::Result<()> {
    let (all, start) = (combinations(), Instant::now());
    let next = AtomicUsize::new(0);
    let work = || -> Vec<(usize, anyhow::Result<()>)> {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < all.len());
        std::iter::from_fn(take).map(|index| (index, passes(&all[index]))).collect()
    };
    let mut results = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(work));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    results.sort_by_key(|(index, _)| *index);
    println!(
        "| API | claims | successes | errors | role | 400 | sets passwords | AC-1 to AC-4 |\n|---|---|---|---|---|---|---|---|"
    );
    for (index, result) in &results {
        let outcome = result.as_ref().map_or_else(|error| format!("**{error:#}**"), |()| "pass".to_owned());
        println!("{} {outcome} |", row(&all[*index]));
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    println!("{} rows in {:.0} s", results.len(), start.elapsed().as_secs_f32());
    ensure!(failed == 0 && results.len() == 324, "{failed} of {} rows of {SERIAL} failed", results.len());
    Ok(())
}
