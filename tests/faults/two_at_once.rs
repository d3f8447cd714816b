//! two_at_once
