//! The **table**: one line a figure, one column a contender, with the ratio to the first that has the figure.

use std::fmt;

/// A table that grows by lines, of so many contenders.
pub struct Table<const N: usize> {
    /// Name and figures.
    lines: Vec<(String, [String; N])>,
}

impl<const N: usize> Table<N> {
    /// With these columns after the first.
    pub fn new(columns: [&str; N]) -> Self {
        Self { lines: vec![(String::new(), columns.map(str::to_owned))] }
    }

    /// A figure of each contender; the first that there is, is the measure for those after it.
    pub fn line(&mut self, name: &str, unit: &str, figures: [Option<f64>; N]) {
        let measure = figures.iter().flatten().next().copied();
        let mut is_first = true;
        let written = figures.map(|figure| {
            let Some(figure) = figure else { return "–".to_owned() };
            let written = format!("{} {unit}", rounded(figure)).trim_end().to_owned();
            if std::mem::take(&mut is_first) {
                return written;
            }
            match measure {
                Some(measure) if measure > 0.0 => format!("{written}  ({}x)", rounded(figure / measure)),
                _ => written,
            }
        });
        self.lines.push((name.to_owned(), written));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: &String| text.chars().count();
        let names = self.lines.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(|column| {
            self.lines.iter().map(|(_, figures)| width(&figures[column])).max().unwrap_or(0)
        });
        for (name, figures) in &self.lines {
            write!(f, "{name:names$}")?;
            for (figure, width) in figures.iter().zip(widths) {
                write!(f, "  {figure:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits at least; a whole number as it is.
fn rounded(figure: f64) -> String {
    let decimals = if figure >= 100.0 || figure.fract() == 0.0 {
        0
    } else if figure >= 10.0 {
        1
    } else {
        2
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_under_each_other_with_their_ratios() {
        let mut table = Table::new(["alone", "agent", "litestream"]);
        table.line("slowest write", "ms", [Some(20.0), Some(25.0), Some(30_000.0)]);
        table.line("uploads", "", [None, Some(60.0), Some(75.0)]);
        assert_eq!(
            table.to_string(),
            "               alone           agent         litestream\n\
             slowest write  20 ms  25 ms  (1.25x)  30000 ms  (1500x)\n\
             uploads            –              60        75  (1.25x)\n"
        );
    }
}
