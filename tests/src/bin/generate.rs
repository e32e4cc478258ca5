//! Writes the generated files: `cargo run -p azaion-tests --bin generate`, after the command line, a printed type, a
//! state or a failure was changed.

fn main() -> anyhow::Result<()> {
    azaion_tests::generated::write()
}
