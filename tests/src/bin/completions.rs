//! Regenerates `docs/completions`: `cargo run -p azaion-tests --bin completions`, after the command line was changed.

fn main() -> anyhow::Result<()> {
    azaion_tests::completions::write()
}
