//! Draws the terminals in `docs/pictures`: `cargo run -p azaion-tests --bin pictures`.
//!
//! Both programs run on a real pseudo-terminal (`script`, of util-linux); the screen content becomes an SVG.

use std::fmt::Write;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use azaion_tests::dev_api::{ADMIN_EMAIL, Fault, Hashing, Options};
use azaion_tests::programs::{output, workspace};
use azaion_tests::station::{Station, command};
use vt100::{Cell, Color, Parser, Screen};

/// Rows of a screen tall enough that nothing scrolls off.
const ROWS: u16 = 120;
/// Size of a character and of the margin in pixels.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;
const MARGIN: usize = 14;
/// The terminal colours used here, of the sixteen.
const PALETTE: [&str; 8] = ["#5c6370", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#dcdfe4"];
const FOREGROUND: &str = "#dcdfe4";
const BACKGROUND: &str = "#21252b";

fn main() -> anyhow::Result<()> {
    demo()?;
    batch()
}

/// Returns everything that a command shows on a terminal with so many columns.
fn on_a_terminal(inside: &str, columns: u16, station: Option<&Station>) -> anyhow::Result<String> {
    let line = format!("stty cols {columns} rows 24 && {inside}");
    let mut script = command(Path::new("script"), &["-q", "-e", "-c", &line, "/dev/null"]);
    script.env("TERM", "xterm-256color").env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if let Some(station) = station {
        script
            .current_dir(station.path(""))
            .env("AZAION_API_URL", station.api.url())
            .env("AZAION_CA_FILE", station.api.ca_file())
            .env("AZAION_ADMIN_EMAIL", ADMIN_EMAIL)
            .env("AZAION_ADMIN_PASSWORD_FILE", station.path("admin-password"));
    }
    output(&mut script)
}

fn demo() -> anyhow::Result<()> {
    const COLUMNS: u16 = 124;
    let program = std::env::current_exe()?.with_file_name("demo");
    let shown = on_a_terminal(&program.display().to_string(), COLUMNS, None)?;
    let mut terminal = terminal(COLUMNS)?;
    terminal.process(b"$ cargo demo\r\n");
    terminal.process(shown.as_bytes());
    save("demo.svg", &[terminal.screen()])
}

/// Draws a batch of fifty devices with one that fails: halfway through, and at the end.
fn batch() -> anyhow::Result<()> {
    const COLUMNS: u16 = 80;
    const TYPED: &str = "azaion-provision batch AZJN-01..AZJN-50 --rootfs 'out/{serial}' --base rootfs";
    let station = Station::new(Options { hashing: Hashing::Cheap, ..Options::default() })?;
    station.api.inject("POST", "/users", Fault::Delay(Duration::from_millis(60)), usize::MAX);
    station.put("out/AZJN-13", "not a root file system", 0o644)?;
    let program = azaion_tests::programs::native()?.join("azaion-provision");
    let ours = TYPED.replace("azaion-provision", &program.display().to_string());
    // `|| true`: the exit code reports the failed device.
    let shown = on_a_terminal(&format!("{ours} --owner current || true"), COLUMNS, Some(&station))?;
    // The progress bar is redrawn a few times a second, so it does not show every number.
    let bar =
        (25..45).find_map(|done| shown.find(&format!(" {done}/50 units"))).context("no progress bar is halfway")?;
    let rest = shown.get(bar..).unwrap_or_default();
    let middle = bar + rest.find(['\r', '\u{1b}']).unwrap_or(rest.len());
    let terminal_after = |part: &str| {
        let mut terminal = terminal(COLUMNS)?;
        terminal.process(format!("# {TYPED}\r\n").as_bytes());
        terminal.process(part.as_bytes());
        anyhow::Ok(terminal)
    };
    let half = shown.get(..middle).context("half of it")?;
    let (half, all) = (terminal_after(half)?, terminal_after(&shown)?);
    save("batch.svg", &[half.screen(), all.screen()])
}

fn terminal(columns: u16) -> anyhow::Result<Parser> {
    let size = |number| NonZero::new(number).context("no size");
    Ok(Parser::new(size(ROWS)?, size(columns)?, 0))
}

/// Writes a picture of screens, one below the other.
#[expect(clippy::disallowed_methods, reason = "no secrets are in it")]
fn save(name: &str, screens: &[&Screen]) -> anyhow::Result<()> {
    let used = |screen: &Screen| {
        let rows: Vec<String> = screen.rows(0, screen.size().1.get()).collect();
        rows.iter().rposition(|row| !row.trim().is_empty()).map_or(0, |last| last + 1)
    };
    let columns = screens.iter().map(|screen| usize::from(screen.size().1.get())).max().unwrap_or_default();
    let rows = screens.iter().map(|screen| used(screen)).sum::<usize>() + screens.len() - 1;
    let (width, height) = (columns * WIDTH + 2 * MARGIN, rows * HEIGHT + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <g font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"13\" \
         fill=\"{FOREGROUND}\" xml:space=\"preserve\">\n"
    );
    let mut row = 0;
    for (number, screen) in screens.iter().enumerate() {
        if number > 0 {
            let y = MARGIN + row * HEIGHT + HEIGHT / 2;
            writeln!(svg, "<path d=\"M0 {y}H{width}\" stroke=\"{}\"/>", PALETTE[0])?;
            row += 1;
        }
        for line in 0..used(screen) {
            draw(&mut svg, screen, u16::try_from(line)?, MARGIN + row * HEIGHT + HEIGHT * 3 / 4)?;
            row += 1;
        }
    }
    svg += "</g>\n</svg>\n";
    fs::create_dir_all(workspace().join("docs/pictures"))?;
    Ok(fs::write(workspace().join("docs/pictures").join(name), svg)?)
}

/// Draws a line of a screen, one element for each colour.
fn draw(svg: &mut String, screen: &Screen, row: u16, y: usize) -> anyhow::Result<()> {
    let mut pieces: Vec<(u16, String, String)> = Vec::new();
    for column in 0..screen.size().1.get() {
        let Some(cell) = screen.cell(row, column) else { continue };
        let (style, text) = (style(cell), if cell.has_contents() { cell.contents() } else { " " });
        match pieces.last_mut() {
            Some((_, last, piece)) if *last == style => piece.push_str(text),
            _ => pieces.push((column, style, text.to_owned())),
        }
    }
    for (column, style, text) in pieces.iter().filter(|(_, _, text)| !text.trim().is_empty()) {
        // With the width on the terminal, independent of the font.
        let (x, width) = (MARGIN + usize::from(*column) * WIDTH, text.trim_end().chars().count() * WIDTH);
        let text = text.trim_end().replace('&', "&amp;").replace('<', "&lt;");
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\" textLength=\"{width}\"{style}>{text}</text>")?;
    }
    Ok(())
}

fn style(cell: &Cell) -> String {
    let colour = match cell.fgcolor() {
        Color::Idx(number) => PALETTE.get(usize::from(number % 8)).map(|colour| format!(" fill=\"{colour}\"")),
        _ => None,
    };
    colour.unwrap_or_default() + if cell.bold() { " font-weight=\"bold\"" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: a picture has the words of the screen at their positions and in their colours, and escapes all of them.
    #[test]
    fn words_and_colours() {
        let mut terminal = terminal(20).unwrap();
        terminal.process(b"a <b> \x1b[32mgreen\x1b[0m & c");
        let mut svg = String::new();
        draw(&mut svg, terminal.screen(), 0, 10).unwrap();
        assert!(
            svg.contains(">a &lt;b></text>") && svg.contains(">green</text>") && svg.contains("> &amp; c</text>"),
            "{svg}"
        );
        assert!(svg.contains("fill=\"#98c379\">green"), "{svg}");
    }
}
