//! A record is read wholly or not at all; a tag never costs a person's text.
#![no_main]

use credential_rotator::access_key::AccessKeyId;
use credential_rotator::record::Record;
use credential_rotator::tag::{self, DESCRIPTION_LIMIT};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(record) = Record::parse(text) {
        let line = record.print();
        assert!(!line.contains('\n'));
        assert_eq!(Record::parse(&line), Some(record));
    }
    let (kept, tagged) = tag::read(text);
    assert!(kept.len() <= text.len());
    if tagged.is_none() {
        assert_eq!(kept, text);
    }
    let id = AccessKeyId::parse("AKIAIOSFODNN7EXAMPLE").expect("the form of an id");
    if let Some(description) = tag::write(&kept, &id) {
        assert!(description.chars().count() <= DESCRIPTION_LIMIT);
        assert!(description.starts_with(&kept));
        assert_eq!(tag::read(&description).1, Some(id));
    }
});
