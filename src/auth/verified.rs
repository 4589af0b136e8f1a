//! What has been found out about a client that is let in: who it is, and for how long.
//!
//! A plain value; knows not how it came about.

use crate::base::limits::{GROUP_BYTES_MAX, GROUPS_MAX, USER_NAME_BYTES_MAX};

/// A client that has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Its user name.
    pub user: Box<str>,
    /// The groups that the user is in.
    pub groups: Box<[Box<str>]>,
    /// For how many seconds from now on this holds; for ever, if `None`.
    pub valid_secs: Option<u64>,
}

impl Verified {
    /// A user in no group, for ever.
    pub fn of_user(user: &str) -> Self {
        Self { user: user.into(), ..Self::default() }
    }

    /// The same, unless something is too much of it, or is no text for a log.
    ///
    /// # Errors
    /// What it is.
    pub fn checked(self) -> Result<Self, &'static str> {
        let is_clean = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        if self.user.len() > USER_NAME_BYTES_MAX || !is_clean(&self.user) {
            return Err("the user name is empty, too long or holds control characters");
        }
        if self.groups.len() > GROUPS_MAX {
            return Err("there are too many groups");
        }
        let is_group = |group: &str| group.len() <= GROUP_BYTES_MAX && is_clean(group);
        if !self.groups.iter().all(|group| is_group(group)) {
            return Err("a group is empty, too long or holds control characters");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold() {
        let with = |user: &str, groups: Vec<&str>| {
            let groups = groups.into_iter().map(Into::into).collect();
            Verified { groups, ..Verified::of_user(user) }.checked().is_ok()
        };
        let long = "x".repeat(USER_NAME_BYTES_MAX + 1);
        assert!(with("ann", vec!["a", "b c"]));
        assert!(with(&long[1..], vec!["g"; GROUPS_MAX]));
        assert!(!with("", vec![]) && !with("a\n", vec![]) && !with(&long, vec![]));
        assert!(!with("ann", vec!["g"; GROUPS_MAX + 1]));
        assert!(!with("ann", vec![""]) && !with("ann", vec![&long[..GROUP_BYTES_MAX + 1]]));
    }
}
