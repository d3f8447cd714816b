//! bad_replies
