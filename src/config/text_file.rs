//! Files that a configuration names, read as text up to a bound.

use std::{
    fs::File,
    io::{self, Read},
};

/// All of a file.
///
/// # Errors
/// Those of reading; [`io::ErrorKind::InvalidData`] if it is no UTF-8, another kind if it is larger than that.
pub fn read_text(file: File, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is larger than {bytes_max} bytes")));
    }
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8");
    String::from_utf8(bytes).map_err(not_text)
}
