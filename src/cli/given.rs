//! JSON that a flag gives, or a file or stdin that it names.

use std::io::Read as _;

use serde_json::value::RawValue;

use super::exit::{Exit, Failure};
use crate::domain::limits;

/// The JSON itself, `@FILE` or `-` for stdin; it stays as it came.
///
/// # Errors
/// It cannot be read, is more than a request may have, or is not JSON.
pub fn json(flag: &str, given: &str) -> anyhow::Result<Box<RawValue>> {
    let most = u64::try_from(limits::BODY_BYTES)?;
    let mut text = String::new();
    let unusable = |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"));
    match (given, given.strip_prefix('@')) {
        ("-", _) => {
            let read = std::io::stdin().lock().take(most + 1).read_to_string(&mut text);
            read.map_err(|error| unusable(format!("stdin cannot be read as text: {error}")))?;
        }
        (_, Some(path)) => {
            let file = std::fs::File::open(path);
            let file = file.map_err(|error| unusable(format!("cannot open {path}: {error}")))?;
            let read = file.take(most + 1).read_to_string(&mut text);
            read.map_err(|error| unusable(format!("{path} cannot be read as text: {error}")))?;
        }
        _ => text.push_str(given),
    }
    if text.len() > limits::BODY_BYTES {
        let more = format!("{flag} has more than {} bytes, the most that a request may have", limits::BODY_BYTES);
        return Err(Failure::new(Exit::Usage, more).into());
    }
    let parsed = serde_json::from_str(&text);
    Ok(parsed.map_err(|error| Failure::new(Exit::Usage, format!("{flag} is not JSON: {error}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_checked_before_anything_is_sent() {
        let error = json("--data", "{oops").unwrap_err();
        assert!(error.to_string().starts_with("--data is not JSON"), "{error}");
        let error = json("--data", "@no-such-file").unwrap_err();
        assert!(error.to_string().contains("no-such-file"), "{error}");
        assert_eq!(error.downcast_ref::<Failure>().map(Failure::exit), Some(Exit::Usage));
        assert_eq!(json("--data", "1.50").unwrap().get(), "1.50", "as it came");
        let error = json("--data", &" ".repeat(limits::BODY_BYTES + 1)).unwrap_err();
        assert!(error.to_string().contains("262144 bytes"), "{error}");
    }
}
