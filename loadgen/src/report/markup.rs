//! HTML and SVG text that cannot be broken out of: only literals of this program enter as they are.
//!
//! Knows nothing of results and pages.

use std::fmt::{self, Display, Write};

/// A piece of HTML or SVG.
#[derive(Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Appends a literal in which each `{}` is replaced by the next of `values`, escaped.
    pub(super) fn put(&mut self, template: &'static str, values: &[&dyn Display]) -> &mut Self {
        let mut values = values.iter();
        let mut parts = template.split("{}");
        self.0.push_str(parts.next().unwrap_or_default());
        for part in parts {
            if let Some(value) = values.next() {
                // Neither a string nor the numbers and texts of this program can fail to be written.
                let _ = write!(Escaped(&mut self.0), "{value}");
            }
            self.0.push_str(part);
        }
        self
    }

    /// Appends a literal.
    pub(super) fn raw(&mut self, literal: &'static str) -> &mut Self {
        self.0.push_str(literal);
        self
    }

    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Writes text so that it is text in an element and in a quoted attribute, in HTML and in XML.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(' '),
                _ if is_unprintable(character) => self.0.push(char::REPLACEMENT_CHARACTER),
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}

/// What XML does not allow, and what would turn around the text that follows it.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{fffe}' | '\u{ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_text_wherever_they_stand() {
        for (value, text) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' &amp;", "&quot; onload=&#39;x&#39; &amp;amp;"),
            ("{} stays", "{} stays"),
            ("a\0b\u{1b}[31m\u{202e}c\u{ffff}", "a\u{fffd}b\u{fffd}[31m\u{fffd}c\u{fffd}"),
            ("two\nlines", "two lines"),
        ] {
            let mut markup = Markup::default();
            markup.put("<b title=\"{}\">{}</b>", &[&value, &7]);
            assert_eq!(markup.into_string(), format!("<b title=\"{text}\">7</b>"));
        }
    }
}
