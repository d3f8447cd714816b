//! The tag in the description of a secret variable: which access key its value belongs to.
//!
//! It is written in the same request as the value, so a hidden value can be told too.

use crate::access_key::AccessKeyId;

/// The longest description that GitLab keeps, in characters.
pub const DESCRIPTION_LIMIT: usize = 255;

const OPEN: &str = "[credential-rotator ";
const CLOSE: char = ']';

/// A description, taken apart: what a person wrote, and the key that the tag names.
pub fn read(description: &str) -> (String, Option<AccessKeyId>) {
    let Some((before, rest)) = description.rsplit_once(OPEN) else {
        return (description.to_owned(), None);
    };
    let Some((id, after)) = rest.split_once(CLOSE) else {
        return (description.to_owned(), None);
    };
    let Some(id) = AccessKeyId::parse(id) else { return (description.to_owned(), None) };
    let text = match (before.trim_end(), after.trim()) {
        (before, "") => before.to_owned(),
        ("", after) => after.to_owned(),
        (before, after) => format!("{before} {after}"),
    };
    (text, Some(id))
}

/// A description with the tag after whatever a person has written there; `None` where that leaves
/// no room, for a person's text is never cut.
pub fn write(text: &str, id: &AccessKeyId) -> Option<String> {
    let space = if text.is_empty() { "" } else { " " };
    let whole = format!("{text}{space}{OPEN}{}{CLOSE}", id.full());
    (whole.chars().count() <= DESCRIPTION_LIMIT).then_some(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = AccessKeyId> {
        "AKIA[A-Z2-7]{16}".prop_map(|text| AccessKeyId::parse(&text).unwrap())
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            let (kept, _) = read(&text);
            prop_assert!(kept.len() <= text.len());
        }

        #[test]
        fn a_persons_text_survives_any_number_of_rotations(text in "[^\\[\\]]{0,100}", first in id(), second in id()) {
            let text = text.trim_end().to_owned();
            let tagged = write(&text, &first).unwrap();
            prop_assert_eq!(read(&tagged), (text.clone(), Some(first)));
            let (kept, _) = read(&tagged);
            let again = write(&kept, &second).unwrap();
            prop_assert_eq!(read(&again), (text, Some(second)));
        }
    }

    #[test]
    fn a_text_that_leaves_no_room_is_not_cut() {
        let id = AccessKeyId::parse("AKIAIOSFODNN7EXAMPLE").unwrap();
        assert_eq!(write(&"x".repeat(220), &id), None);
        let tag = write("", &id).unwrap();
        assert!(write(&"ü".repeat(DESCRIPTION_LIMIT - 1 - tag.len()), &id).is_some());
    }

    #[test]
    fn text_behind_the_tag_is_a_persons_too() {
        let (text, id) = read("owned by ops [credential-rotator AKIAIOSFODNN7EXAMPLE] ask Kim");
        assert_eq!(text, "owned by ops ask Kim");
        assert_eq!(id.unwrap().full(), "AKIAIOSFODNN7EXAMPLE");
    }
}
