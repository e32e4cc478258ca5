//! Fails if there is a failure in the tables that no test has provoked since `./tests/run --all` began.

fn main() -> anyhow::Result<()> {
    let missing = azaion_tests::provoked::missing();
    anyhow::ensure!(missing.is_empty(), "no test has provoked these failures:\n{}", missing.join("\n"));
    Ok(())
}
