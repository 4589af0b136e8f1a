//! Topics and filters with variables, which differ from client to client and message to message.

use std::fmt;

/// A text with variables in it; `%%` is a percent sign.
///
/// | variable | stands for |
/// |---|---|
/// | `%i` | number of the client within its kind |
/// | `%c` | client identifier |
/// | `%u` | user name |
/// | `%g` | number of the client modulo the number of subscribers |
/// | `%m` | number of the message, ten digits (topics only) |
/// | `%r` | an identifier of this run, unlike any other's |
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Template(String);

/// What the variables stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variables<'a> {
    pub(crate) number: u64,
    pub(crate) client_id: &'a str,
    pub(crate) user_name: &'a str,
    pub(crate) group: u64,
    pub(crate) run: &'a str,
}

/// Why a text is no template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("%{0} is no variable: there are %i, %c, %u, %g, %m, %r and %%")]
    UnknownVariable(char),
    #[error("a % at the end: write %% for a percent sign")]
    LonePercent,
    #[error("%m may stand only once")]
    TwoMessageNumbers,
}

impl Template {
    /// Checks the variables.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut chars, mut message_numbers) = (text.chars(), 0);
        while let Some(one) = chars.next() {
            if one == '%' {
                match chars.next() {
                    Some('i' | 'c' | 'u' | 'g' | 'r' | '%') => {}
                    Some('m') => message_numbers += 1,
                    Some(other) => return Err(TemplateError::UnknownVariable(other)),
                    None => return Err(TemplateError::LonePercent),
                }
            }
        }
        if message_numbers > 1 {
            return Err(TemplateError::TwoMessageNumbers);
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether there is a `%m`.
    pub(crate) fn has_message_number(&self) -> bool {
        self.variables().any(|(_, variable)| variable == 'm')
    }

    /// The text with everything filled in. The message number is 0; the place of its first digit
    /// comes with the text.
    pub(crate) fn fill(&self, variables: &Variables<'_>) -> (String, Option<usize>) {
        use fmt::Write as _;
        let (mut text, mut rest, mut message_at) = (String::new(), 0, None);
        for (at, variable) in self.variables() {
            text.push_str(&self.0[rest..at]);
            rest = at + 2;
            // Writing to a string cannot fail.
            let _ = match variable {
                'i' => write!(text, "{}", variables.number),
                'g' => write!(text, "{}", variables.group),
                'c' => write!(text, "{}", variables.client_id),
                'u' => write!(text, "{}", variables.user_name),
                'r' => write!(text, "{}", variables.run),
                'm' => {
                    message_at = Some(text.len());
                    write!(text, "{:0width$}", 0, width = MESSAGE_DIGITS)
                }
                _ => write!(text, "%"),
            };
        }
        text.push_str(&self.0[rest..]);
        (text, message_at)
    }

    /// Places and names of the variables.
    fn variables(&self) -> impl Iterator<Item = (usize, char)> {
        let mut rest = 0;
        std::iter::from_fn(move || {
            let at = rest + self.0[rest..].find('%')?;
            rest = at + 2;
            Some((at, char::from(self.0.as_bytes()[at + 1])))
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digits of a message number: always as many, so that it can be replaced in place.
pub(crate) const MESSAGE_DIGITS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let variables =
            Variables { number: 7, client_id: "me", user_name: "joe", group: 1, run: "x" };
        for (template, expected) in [
            ("", ("", None)),
            ("a/b", ("a/b", None)),
            ("%r/%g/%i", ("x/1/7", None)),
            ("100%%/%c-%u/%m/z", ("100%/me-joe/0000000000/z", Some(12))),
            ("ü%i", ("ü7", None)),
        ] {
            let filled = Template::parse(template).unwrap().fill(&variables);
            assert_eq!(filled, (expected.0.to_owned(), expected.1), "{template}");
        }
    }

    #[test]
    fn faults_are_named() {
        for (template, error) in [
            ("%", TemplateError::LonePercent),
            ("%x", TemplateError::UnknownVariable('x')),
            ("%ü", TemplateError::UnknownVariable('ü')),
            ("%m%m", TemplateError::TwoMessageNumbers),
        ] {
            assert_eq!(Template::parse(template), Err(error));
        }
    }
}
