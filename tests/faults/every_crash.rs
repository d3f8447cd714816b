//! every_crash
