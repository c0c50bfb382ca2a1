//! Command lines of the measuring programs: options with a value each.

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The value of an option.
#[derive(Debug)]
pub struct Value {
    option: String,
    text: String,
}

impl Value {
    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self) -> Result<u64> {
        self.text.parse().with_context(|| self.is("not a number"))
    }
    /// A number within bounds; what is beyond them is brought there.
    ///
    /// # Errors
    /// It is none.
    pub fn within(&self, least: u64, most: u64) -> Result<u64> {
        Ok(self.number()?.clamp(least, most))
    }
    /// The full path of a program: everything runs in directories of its own.
    ///
    /// # Errors
    /// There is none.
    pub fn program(&self) -> Result<PathBuf> {
        std::fs::canonicalize(&self.text).with_context(|| format!("no program at {}", self.text))
    }
    /// What is wrong with it.
    pub fn is(&self, what: impl Display) -> String {
        format!("{} {}: {what}", self.option, self.text)
    }
}

/// Gives each option and its value to `take`, which returns whether it knows it. Returns `false`, with nothing more read, when
/// the help text was asked for.
///
/// # Errors
/// An option that is not known or lacks its value, or what `take` found wrong.
pub fn read(
    mut words: impl Iterator<Item = String>,
    mut take: impl FnMut(&str, Value) -> Result<bool>,
) -> Result<bool> {
    while let Some(option) = words.next() {
        if option == "--help" || option == "-h" {
            return Ok(false);
        }
        let text = words
            .next()
            .with_context(|| format!("{option} needs a value"))?;
        let value = Value {
            option: option.clone(),
            text,
        };
        anyhow::ensure!(
            take(&option, value)?,
            "unknown option {option}; --help lists them"
        );
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(words: &[&str]) -> Result<Option<u64>> {
        let mut sum = 0;
        let words = words.iter().map(ToString::to_string);
        let complete = read(words, |option, value| {
            if option == "--add" {
                sum += value.within(1, 10)?;
            }
            Ok(option == "--add")
        })?;
        Ok(complete.then_some(sum))
    }

    #[test]
    fn options_have_values() {
        assert_eq!(sum(&["--add", "3", "--add", "40"]).unwrap(), Some(13));
        assert_eq!(sum(&["--add", "3", "-h"]).unwrap(), None);
        for (words, why) in [
            (&["--add"][..], "--add needs a value"),
            (&["--add", "x"], "--add x: not a number"),
            (&["--ad", "1"], "unknown option --ad; --help lists them"),
        ] {
            assert_eq!(sum(words).unwrap_err().to_string(), why);
        }
    }
}
