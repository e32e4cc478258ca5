//! Compressed disk images that are mostly holes.
